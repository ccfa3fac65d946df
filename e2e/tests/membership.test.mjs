// The Matrix room decides who is in its call: only members get in, whoever leaves or is thrown out of the room is out of the
// call at once, and a homeserver that is down throws nobody out. Parlour is the application service of a real Synapse.
import assert from "node:assert/strict";
import { Peer } from "../stack/participant.mjs";
import { requestSfu, requestThroughHomeserver, requestToken, wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile({ appservice: true });

const JOINED_WITHIN_MS = 10_000;
/** What people are promised: who is not in the room any more is out of its call this soon. */
const OUT_WITHIN_MS = 1_000;
/** A Synapse that has just started first does what it has put off. */
const OUT_AFTER_START_WITHIN_MS = 10_000;
/** Long enough for everything that would throw somebody out while the homeserver is away. */
const OUTAGE_MS = 8_000;

const identity = (user) => `${user.userId}:${user.deviceId}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The three ways to a token, for `user`. */
const DIALECTS = {
  "/sfu/get": async (user, room) => requestSfu(scenario.stack.parlour.url, { room, device: user.deviceId, openIdToken: await user.openIdToken() }),
  "/get_token": async (user, room) =>
    requestToken(scenario.stack.parlour.url, { room, user: user.userId, device: user.deviceId, member: "M", openIdToken: await user.openIdToken() }),
  "the homeserver's get_token": (user, room) => requestThroughHomeserver(user, { room, member: "M", url: scenario.stack.parlour.url.replace("http", "ws") }),
};

/** One who talks in the call of the room, and how the others know that somebody is in it. */
async function join(user, roomId) {
  const peer = await scenario.open(Peer, user.displayName, `${scenario.stack.pages.url}/peer/`);
  peer.way = await wayIn(scenario.stack.parlour.url, user, roomId);
  await peer.join(peer.way, { microphone: true });
  return peer;
}

const others = (peer) => peer.page.evaluate(() => window.peer.others()).then(([list]) => list);

/** Resolves with the milliseconds until exactly `users` are in the call besides `peer`. */
function meets(peer, users, withinMs) {
  const wanted = users.map(identity).sort().join();
  return until(`${peer.name} is in the call with ${wanted || "nobody"}`, withinMs, () => others(peer), (list) => [...list].sort().join() === wanted, 20);
}

async function assertRefused(answer, status = 403) {
  const { status: got, body } = await answer;
  assert.equal(got, status, JSON.stringify(body));
  assert.equal(body.errcode, "M_FORBIDDEN");
  assert.match(body.error, /room/);
}

scenario.test("tokens are for members of the room", async (step) => {
  const { roomId, users } = await scenario.room({ names: ["Alice", "Stranger"] });
  const [alice, guest] = users;

  await step("a member gets one in each dialect", async () => {
    for (const ask of Object.values(DIALECTS)) {
      const { status, body } = await ask(alice, roomId);
      assert.equal(status, 200, JSON.stringify(body));
    }
  });

  await step("who has left gets none in any, and hears why", async () => {
    await guest.leave(roomId);
    for (const ask of Object.values(DIALECTS)) await assertRefused(ask(guest, roomId));
  });

  await step("nor who is only invited", async () => {
    await alice.moderate(roomId, "invite", guest);
    for (const ask of Object.values(DIALECTS)) await assertRefused(ask(guest, roomId));
  });

  await step("nor anybody for a room that the homeserver does not know", async () => {
    for (const ask of Object.values(DIALECTS)) await assertRefused(ask(alice, "!elsewhere:parlour.test"));
  });

  await step("who joins gets one at once", async () => {
    await guest.join(roomId);
    for (const ask of Object.values(DIALECTS)) assert.equal((await ask(guest, roomId)).status, 200);
  });
});

scenario.test("who is out of the room is out of the call", async (step) => {
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob", "Carol"] });
  const [alice, bob, carol] = users;
  let host, guest, witness;

  await step("three are in a call", async () => {
    host = await join(alice, roomId);
    witness = await join(carol, roomId);
    guest = await join(bob, roomId);
    await meets(host, [bob, carol], JOINED_WITHIN_MS);
    await host.hears(2, JOINED_WITHIN_MS);
  });

  for (const [how, leave] of [
    ["leaves", () => bob.leave(roomId)],
    ["is kicked", () => alice.moderate(roomId, "kick", bob)],
    ["is banned", () => alice.moderate(roomId, "ban", bob)],
  ]) {
    await step(`who ${how} is gone within a second`, async (t) => {
      await leave();
      const [took] = await Promise.all([meets(host, [carol], OUT_WITHIN_MS), meets(witness, [alice], OUT_WITHIN_MS)]);
      t.diagnostic(`gone after ${Math.round(took)} ms`);
      await until("the client knows that it was removed", OUT_WITHIN_MS, () => guest.page.evaluate(() => window.peer.ends), (ends) => {
        return ends.join() === "PARTICIPANT_REMOVED";
      });
    });

    await step(`who ${how} does not get in with the token of before`, async () => {
      await assert.rejects(guest.join(guest.way, {}), /ConnectionError|401|not.*room|ended/i);
      await assertRefused(DIALECTS["/sfu/get"](bob, roomId));
      assert.deepEqual(await others(host), [identity(carol)]);
      await guest.close();
    });

    await step(`who ${how} and is invited again gets in again`, async () => {
      if (how === "is banned") await alice.moderate(roomId, "unban", bob);
      await alice.moderate(roomId, "invite", bob);
      await bob.join(roomId);
      guest = await join(bob, roomId);
      await meets(host, [bob, carol], JOINED_WITHIN_MS);
    });
  }

  await step("the others have noticed nothing", async () => {
    for (const peer of [host, witness]) assert.deepEqual(await peer.page.evaluate(() => [window.peer.ends, window.peer.reconnects()]), [[], 0]);
    await host.hears(2, JOINED_WITHIN_MS);
  });
});

scenario.test("a homeserver that is down throws nobody out", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  const peers = [];

  await step("two are in a call", async () => {
    for (const user of users) peers.push(await join(user, roomId));
    await meets(peers[0], [bob], JOINED_WITHIN_MS);
  });

  await step("Synapse stops, and they go on", async () => {
    await stack.synapse.stop();
    await pause(OUTAGE_MS);
    for (const peer of peers) {
      assert.deepEqual(await peer.page.evaluate(() => window.peer.ends), []);
      await peer.hears(1, JOINED_WITHIN_MS);
    }
  });

  for (const [what, simulated] of [["whose line breaks resumes", "signal-reconnect"], ["who must join anew does", "full-reconnect"]]) {
    await step(what, async () => {
      const before = await peers[1].page.evaluate(() => window.peer.reconnects());
      await peers[1].page.evaluate((scenario) => window.peer.simulate(scenario), simulated);
      await until("it is reconnected", JOINED_WITHIN_MS, () => peers[1].page.evaluate(() => window.peer.reconnects()), (count) => count > before);
      await meets(peers[0], [bob], JOINED_WITHIN_MS);
      for (const peer of peers) await peer.hears(1, JOINED_WITHIN_MS);
    });
  }

  await step("Synapse starts, and they go on", async () => {
    await stack.synapse.start();
    await pause(2_000);
    for (const peer of peers) await peer.hears(1, JOINED_WITHIN_MS);
  });

  await step("members get tokens again, and who is banned is out", async (t) => {
    assert.equal((await DIALECTS["/sfu/get"](bob, roomId)).status, 200);
    await alice.moderate(roomId, "ban", bob);
    t.diagnostic(`gone after ${Math.round(await meets(peers[0], [], OUT_AFTER_START_WITHIN_MS))} ms`);
  });
});

scenario.test("moderators and operators act in calls", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  let host, guest;

  const moderate = async (moderator, user, more) => {
    const body = { openid_token: await moderator.openIdToken(), room_id: roomId, user_id: user.userId, ...more };
    return fetch(`${stack.parlour.url}/moderate`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  };

  await step("two are in a call", async () => {
    host = await join(alice, roomId);
    guest = await join(bob, roomId);
    await meets(host, [bob], JOINED_WITHIN_MS);
    await host.hears(1, JOINED_WITHIN_MS);
  });

  await step("who may not kick in the room may not in the call", async () => {
    for (const action of ["mute", "remove"]) assert.equal((await moderate(bob, alice, { action })).status, 403);
    await guest.hears(1, JOINED_WITHIN_MS);
  });

  await step("a moderator mutes", async () => {
    const answer = await moderate(alice, bob, { action: "mute", source: "microphone" });
    assert.equal(answer.status, 200, await answer.text());
    await until("Bob's microphone is muted for Alice", OUT_WITHIN_MS, () => host.page.evaluate(() => window.peer.muted()), (muted) => muted.join() === "true");
    await until("and for himself", OUT_WITHIN_MS, () => guest.page.evaluate(() => window.peer.ownMuted()), (muted) => muted.join() === "true");
  });

  await step("a moderator removes", async () => {
    const answer = await moderate(alice, bob, { action: "remove" });
    assert.equal(answer.status, 200, await answer.text());
    await meets(host, [], OUT_WITHIN_MS);
  });

  await step("the operator lists calls and ends one", async () => {
    const ours = () => JSON.parse(stack.parlour.run("calls", "list", "--json")).calls.filter((call) => call.room_id === roomId);
    assert.deepEqual(ours().map(({ participants }) => participants.map((participant) => participant.user_id)), [[alice.userId]]);
    assert.match(stack.parlour.run("calls", "list"), new RegExp(roomId.replace(/[!$]/g, "\\$&")));
    stack.parlour.run("calls", "end", roomId);
    await until("the call has ended for Alice", OUT_WITHIN_MS, () => host.page.evaluate(() => window.peer.ends), (ends) => ends.join() === "ROOM_DELETED");
    assert.deepEqual(ours(), []);
  });
});
