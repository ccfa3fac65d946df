// The native LiveKit client and a browser in one call: each sees and hears the other.
import path from "node:path";
import { E2E } from "../stack/places.mjs";
import { Peer } from "../stack/participant.mjs";
import { python } from "../stack/python.mjs";
import { Service } from "../stack/service.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

scenario.test("a native client and a browser in one call", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  const identity = (user) => `${user.userId}:${user.deviceId}`;
  let browser, native;

  await step("both join", async () => {
    browser = await scenario.open(Peer, "browser", `${stack.pages.url}/peer/`);
    await browser.join(await wayIn(stack.parlour.url, alice, roomId), { camera: true, microphone: true });
    const { url, jwt } = await wayIn(stack.parlour.url, bob, roomId);
    native = new Service("native client", await python(), [path.join(E2E, "native/peer.py"), url, jwt], { log: path.join(stack.folder, "native.log") });
  });

  await step("the browser sees and hears the native client", async () => {
    await browser.sees([identity(bob)], 15_000);
    await browser.hears(1, 10_000);
  });

  await step("the native client sees and hears the browser", async () => {
    await until("picture and sound of the browser", 15_000, () => lastReport(native), (report) => {
      const heard = report[identity(alice)];
      return heard?.frames > 15 && heard.moving && heard.loudness > 0.01;
    });
  });

  await step("the native client leaves", async () => {
    await native.stop();
    await until("the native client is gone", 2_000, () => browser.page.evaluate(() => window.peer.others()), ([others]) => others.length === 0);
  });
});

/** The native client prints a report each second, among its library's log lines. */
function lastReport(service) {
  if (service.how) throw new Error(`the native client ${service.how}:\n${service.lastLines(20)}`);
  const reports = service.output().split("\n").filter((line) => line.startsWith("{"));
  return JSON.parse(reports.at(-1) ?? "{}");
}
