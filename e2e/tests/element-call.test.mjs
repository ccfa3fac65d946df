// The main job: unmodified Element Calls hold a group call through Parlour, in an unencrypted and in an encrypted room.
import assert from "node:assert/strict";
import { ElementCall } from "../stack/participant.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** What people are promised: everybody is seen and heard this soon after joining. */
const SEEN_WITHIN_MS = 10_000;
const HEARD_WITHIN_MS = 10_000;
const GONE_WITHIN_MS = 2_000;

for (const encrypted of [false, true]) {
  scenario.test(`a group call in an ${encrypted ? "encrypted" : "unencrypted"} room`, async (step) => {
    const { roomId, users } = await scenario.room({ encrypted, names: ["Alice", "Bob", "Carol", "Dave"] });
    const join = (user) => scenario.open(ElementCall, user.displayName, scenario.stack.elementCallLink(user, roomId));
    const together = (callers, withinMs = SEEN_WITHIN_MS) => Promise.all(callers.map((caller) => caller.sees(callers.map(({ name }) => name), withinMs)));
    let alice, bob, carol, dave;

    await step("three see three moving videos within 10 s of joining", async (t) => {
      alice = await join(users[0]);
      bob = await join(users[1]);
      carol = await join(users[2]);
      t.diagnostic(`seen after ${rounded(await together([alice, bob, carol]))} ms`);
    });

    await step("each hears the two others", async () => {
      for (const caller of [alice, bob, carol]) await caller.hears(2, HEARD_WITHIN_MS);
    });

    await step(`media is ${encrypted ? "" : "not "}end-to-end encrypted`, async () => {
      for (const caller of [alice, bob, carol]) {
        const keys = (await caller.hostLog()).filter((line) => line.includes("from device io.element.call.encryption_keys"));
        assert.equal(keys.length > 0, encrypted, `${caller.name} received keys`);
        const tracks = caller.console.filter((line) => line.includes("[RemoteTracks] Subscribed:"));
        assert.ok(tracks.length >= 4 && tracks.every((line) => line.includes(`encrypted=${encrypted}`)), tracks.join("\n"));
      }
    });

    await step("a shared screen appears to the others", async () => {
      await bob.shareScreen();
      for (const caller of [alice, carol]) {
        await until(`${caller.name} sees Bob and his screen`, SEEN_WITHIN_MS, () => caller.videos(), (videos) => {
          return videos.filter((video) => video.name.startsWith("Bob") && video.moving).length === 2;
        });
      }
      await bob.shareScreen(); // the same button ends it
      await together([alice, bob, carol]);
    });

    await step("who reloads is back once", async (t) => {
      // In an encrypted room the others send keys to nobody who was a member all the time: Parlour ends the old page's membership.
      await carol.reload();
      const seen = await together([alice, bob, carol]);
      t.diagnostic(`seen after ${rounded(seen)} ms`);
      await alice.hears(2, HEARD_WITHIN_MS);
    });

    await step("who leaves is gone within 2 s", async (t) => {
      await carol.leave();
      t.diagnostic(`gone after ${rounded(await Promise.all([alice, bob].map((caller) => caller.loses("Carol", GONE_WITHIN_MS))))} ms`);
    });

    await step("who joins late sees and hears everyone", async () => {
      dave = await join(users[3]);
      await together([alice, bob, dave]);
      await dave.hears(2, HEARD_WITHIN_MS);
    });
  });
}

function rounded(times) {
  return times.map((ms) => Math.round(ms)).join(", ");
}
