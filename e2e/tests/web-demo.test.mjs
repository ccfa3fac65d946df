// The web demo and the unmodified Element Call in one call, in an unencrypted and in an encrypted room.
import assert from "node:assert/strict";
import { ElementCall, WebDemo } from "../stack/participant.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

for (const encrypted of [false, true]) {
  scenario.test(`the web demo and Element Call in an ${encrypted ? "encrypted" : "unencrypted"} room`, async (step) => {
    const { stack } = scenario;
    const names = ["Alice", "Bob", "Carol"];
    const { roomId, users } = await scenario.room({ encrypted, names });
    let alice, bob, carol;

    await step("three see each other within 10 s of joining", async () => {
      alice = await scenario.open(WebDemo, "Alice", stack.webDemoLink(users[0], roomId));
      bob = await scenario.open(WebDemo, "Bob", stack.webDemoLink(users[1], roomId, { lobby: "skip" }));
      carol = await scenario.open(ElementCall, "Carol", stack.elementCallLink(users[2], roomId));
      await Promise.all([alice, bob, carol].map((caller) => caller.sees(names, 10_000)));
    });

    await step("each hears the two others", async () => {
      for (const caller of [alice, bob, carol]) await caller.hears(2, 10_000);
    });

    await step("the demo says truly whether the call is encrypted", async () => {
      const { e2ee } = await alice.page.evaluate(() => window.parlour.state);
      assert.equal(e2ee.level, encrypted ? "end-to-end" : "transport");
    });

    await step("a screen shared in the demo appears in Element Call", async () => {
      await bob.shareScreen();
      for (const caller of [alice, carol]) {
        await until(`${caller.name} sees Bob and his screen`, 10_000, () => caller.videos(), (videos) => {
          return videos.filter((video) => video.name.startsWith("Bob") && video.moving).length === 2;
        });
      }
    });

    await step("who leaves the demo is gone within 2 s", async () => {
      await bob.leave();
      await Promise.all([alice, carol].map((caller) => caller.loses("Bob", 2_000)));
    });

    await step("who leaves Element Call is gone within 2 s", async () => {
      await carol.leave();
      await alice.loses("Carol", 2_000);
    });
  });
}
