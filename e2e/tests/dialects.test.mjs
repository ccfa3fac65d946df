// Both signalling dialects in one call: v0 with two peer connections, where the server offers what goes downstream, and v1
// with one. Old SDKs speak only v0, and every client falls back to it.
import { Peer } from "../stack/participant.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

scenario.test("v0 and v1 in one call", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob", "Carol"] });
  const identity = (user) => `${user.userId}:${user.deviceId}`;
  const callers = [];

  await step("two join by v0, one by v1", async () => {
    for (const [index, user] of users.entries()) {
      const caller = await scenario.open(Peer, user.displayName, `${stack.pages.url}/peer/`);
      await caller.join(await wayIn(stack.parlour.url, user, roomId), { camera: true, microphone: true, singlePeerConnection: index === 2 });
      callers.push(caller);
    }
  });

  await step("each sees and hears the two others", async () => {
    for (const [index, caller] of callers.entries()) {
      await caller.sees(users.filter((_, other) => other !== index).map(identity), 10_000);
      await caller.hears(2, 10_000);
    }
  });

  await step("the log names the dialects", async () => {
    const joins = stack.parlour.service.output().split("\n").filter((line) => line.includes("connected participant="));
    const dialects = joins.map((line) => line.match(/dialect=(V\d)/)?.[1]).sort();
    if (dialects.join() !== "V0,V0,V1") throw new Error(`joined by ${dialects}:\n${joins.join("\n")}`);
  });
});
