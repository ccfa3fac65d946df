// A publisher sends no layer that nobody looks at: what livekit-client does with the server's word, seen in what Chromium sends.
import { Peer } from "../stack/participant.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** Two cores encode three layers and decode them without hardware. */
const SLOWLY = 60_000;

/** Between two looks at what is sent. Layers that are on send ten frames a second at least. */
const LOOK_MS = 1_000;
const FEWEST_FRAMES = 3;

for (const dialect of ["v1", "v0"]) {
  scenario.test(`by ${dialect}`, async (step) => {
    const { stack } = scenario;
    const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
    const [alice, bob] = users;
    const singlePeerConnection = dialect === "v1";
    let publisher, viewer;

    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

    /** Which of the camera's layers are being sent, e.g. "110": the low and the medium one. */
    const layers = async () => {
      const look = () => publisher.page.evaluate(() => window.peer.sent());
      const before = await look();
      await pause(LOOK_MS);
      const after = await look();
      return after.map(({ frames }, n) => (frames - (before[n]?.frames ?? 0) >= FEWEST_FRAMES ? "1" : "0")).join("");
    };
    const sends = (what, wanted) => until(what, SLOWLY, layers, (sent) => sent === wanted);

    await step("both join", async () => {
      viewer = await scenario.open(Peer, "viewer", `${stack.pages.url}/peer/`);
      await viewer.join(await wayIn(stack.parlour.url, bob, roomId), { adaptiveStream: false, singlePeerConnection });
      publisher = await scenario.open(Peer, "publisher", `${stack.pages.url}/peer/`);
      await publisher.join(await wayIn(stack.parlour.url, alice, roomId), { camera: true, singlePeerConnection, publishDefaults: { videoCodec: "vp8" } });
      await viewer.sees([`${alice.userId}:${alice.deviceId}`], SLOWLY);
    });

    await step("all layers are sent to somebody who wants the best", () => sends("three layers", "111"));

    await step("one to somebody who wants the lowest", async () => {
      await viewer.page.evaluate(() => window.peer.setQuality(0));
      await sends("the lowest layer", "100");
    });

    await step("two to somebody who wants the one above", async () => {
      await viewer.page.evaluate(() => window.peer.setQuality(1));
      await sends("two layers", "110");
    });

    await step("none to nobody", async () => {
      await viewer.page.evaluate(() => window.peer.subscribe(false));
      await sends("no layer", "000");
    });

    await step("all again to somebody who comes back", async () => {
      await viewer.page.evaluate(() => window.peer.subscribe(true));
      await viewer.page.evaluate(() => window.peer.setQuality(2));
      await sends("three layers", "111");
      await viewer.sees([`${alice.userId}:${alice.deviceId}`], SLOWLY);
    });
  });
}
