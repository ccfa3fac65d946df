// No ghosts, and nobody dropped: Element Call leaves it to Parlour to end its membership when it is gone (MSC4140 delayed events,
// delegated), and Parlour tells who is gone from who has only lost the line for a moment, over its own restart too.
import { unavailable } from "../stack/own-network.mjs";
import assert from "node:assert/strict";
import { killBrowser, startBrowser } from "../stack/browser.mjs";
import { SERVER, startNetwork } from "../stack/network.mjs";
import { ElementCall, Peer } from "../stack/participant.mjs";
import { scratchFolder } from "../stack/places.mjs";
import { startStack } from "../stack/stack.mjs";
import { delegateThroughHomeserver, requestThroughHomeserver, wayIn } from "../stack/token-service.mjs";
import { PATIENCE, until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

/** What Element Call asks for when it can leave the rest to the server; otherwise 18 s. */
const DELEGATED_DELAY_MS = 3_600_000;

const SEEN_WITHIN_MS = 10_000;
const DELEGATED_WITHIN_MS = 10_000;
/** How soon Element Call is heard again after the line broke: it notices, waits a little, connects anew. */
const BACK_WITHIN_MS = 30_000;
/** What people are promised about somebody whose browser has crashed. */
const OUT_OF_CALL_WITHIN_MS = 20_000;
/** Somebody who has left may be reloading the page: the room is told when nobody has come back by then … */
const RELOAD_GRACE_MS = 3_000;
/** … and this soon after the SFU has given somebody up. */
const OUT_OF_ROOM_WITHIN_MS = RELOAD_GRACE_MS + 2_000;
/** Two clocks are read through a browser and over HTTP. */
const INACCURACY_MS = 500;
/** What a restart of Parlour may take, start of the process to open port, for nobody to drop out of the room. */
const RESTART_WITHIN_MS = 5_000;

/** Everybody at a machine of their own, with a browser of their own. */
class Machines extends Scenario {
  skip = unavailable;

  async start() {
    this.participants = new Set();
    this.rooms = 0;
    this.browsers = [];
    this.network = startNetwork();
    this.stack = await startStack(() => {}, { address: SERVER.ipv4, appservice: true });
  }

  /** A new machine with a browser, for `open`'s option of that name. */
  async browserOn(name) {
    const machine = await this.network.machine(name);
    const browser = await startBrowser({ machine, home: scratchFolder("home"), secureOrigins: [this.stack.pages.url] });
    this.browsers.push(browser);
    return { machine, browser };
  }

  /** Shows Element Call to `user` on a machine of its own. */
  async call(user, roomId) {
    const { machine, browser } = await this.browserOn(user.displayName);
    const prepare = (context) => context.addInitScript(keepSockets);
    const caller = await this.open(ElementCall, user.displayName, this.stack.elementCallLink(user, roomId), { browser, prepare });
    return Object.assign(caller, { machine, browser, user });
  }

  /** Ends a caller's browser without a word. */
  async crash(caller) {
    this.participants.delete(caller);
    await killBrowser(caller.browser);
  }

  async stop() {
    for (const browser of this.browsers ?? []) await browser.close();
    await this.stack?.stop();
    await this.network?.stop();
  }
}

const scenario = Machines.forThisFile();

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs in every frame: keeps its WebSockets, to break one. */
function keepSockets() {
  const sockets = (window.sockets = []);
  window.WebSocket = class extends WebSocket {
    constructor(...parameters) {
      super(...parameters);
      sockets.push(this);
    }
  };
}

/** The event that says that `user` is in the call of the room, or `undefined`. */
async function membership(witness, user, roomId) {
  const events = await witness.callMembers(roomId);
  return events.find(({ sender }) => sender === user.userId);
}

/** The delayed leave of `user` in the room. */
async function delayedLeave(user, roomId) {
  const events = await user.delayedEvents();
  return events.filter((event) => event.room_id === roomId && event.type === "org.matrix.msc3401.call.member");
}

/** Resolves when Parlour has taken over `count` delayed leaves. */
function delegated(count) {
  return until(`${count} are delegated`, DELEGATED_WITHIN_MS, () => scenario.stack.parlour.metric("parlour_delayed_leaves"), (seen) => seen === count);
}

/** Resolves when Parlour has restarted the delay after `timestamp`, in ms: its first act when it takes over and when it starts. */
function restarts(user, roomId, timestamp) {
  return until("Parlour restarts the delay", DELEGATED_WITHIN_MS, () => delayedLeave(user, roomId), ([event]) => event?.delayed_since_ts > timestamp);
}

/** Fails when the membership is not the very event that it was: not even for a moment was it gone. */
async function assertStays(witness, user, roomId, { event_id: eventId }) {
  assert.equal((await membership(witness, user, roomId))?.event_id, eventId, `${user.userId} has stayed in the room's call`);
}

/** Crashes `caller` and checks that it is out of the call in time, and out of the room then and not before. */
async function assertEndsWith(caller, witness, others, roomId, t) {
  const { user } = caller;
  await scenario.crash(caller);
  const start = performance.now();
  const [outOfCall, outOfRoom] = await Promise.all([
    until("the SFU gives it up", OUT_OF_CALL_WITHIN_MS, others, (list) => !list.includes(caller.name) && !list.includes(`${user.userId}:${user.deviceId}`)),
    until("the membership is gone", OUT_OF_CALL_WITHIN_MS + OUT_OF_ROOM_WITHIN_MS, () => membership(witness, user, roomId), (event) => !event),
  ]);
  t.diagnostic(`out of the call after ${Math.round(outOfCall)} ms, out of the room after ${Math.round(outOfRoom)} ms, all after ${Math.round(performance.now() - start)} ms`);
  assert.ok(outOfRoom >= outOfCall - INACCURACY_MS * PATIENCE, "not out of the room before it is out of the call");
  assert.ok(outOfRoom <= outOfCall + OUT_OF_ROOM_WITHIN_MS * PATIENCE, "out of the room soon after");
}

scenario.test("a browser that crashes leaves no ghost, one that loses its line stays", async (step) => {
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  const identity = `${bob.userId}:${bob.deviceId}`;
  let caller, watcher, member;

  const inCall = () => watcher.page.evaluate(() => window.peer.others()).then(([list]) => list);
  const isBack = () => Promise.all([watcher.sees([identity], BACK_WITHIN_MS), watcher.hears(1, BACK_WITHIN_MS)]);

  await step("Element Call is in the call, and somebody watches", async () => {
    watcher = await scenario.open(Peer, "watcher", `${scenario.stack.pages.url}/peer/`, await scenario.browserOn("watcher"));
    await watcher.join(await wayIn(scenario.stack.parlour.url, alice, roomId), {});
    caller = await scenario.call(bob, roomId);
    await watcher.sees([identity], SEEN_WITHIN_MS);
  });

  await step("it sees that it may delegate, and does", async () => {
    assert.ok(caller.console.some((line) => line.includes(`transport ${scenario.stack.parlour.url} supports delegation`)), caller.console.join("\n"));
    const [event, ...more] = await delayedLeave(bob, roomId);
    assert.deepEqual([event.delay_ms, more], [DELEGATED_DELAY_MS, []]);
    member = await membership(alice, bob, roomId);
    assert.ok(member, "Bob is in the room's call");
    await delegated(1);
  });

  await step("it stays when its signalling breaks, and comes back", async () => {
    const opened = () => caller.view.evaluate(() => window.sockets.length);
    const before = await opened();
    await caller.view.evaluate(() => window.sockets.at(-1).close());
    await until("it has connected again", BACK_WITHIN_MS, opened, (count) => count > before);
    await isBack();
    await assertStays(alice, bob, roomId, member);
  });

  await step("it stays when it moves to another network", async (t) => {
    scenario.network.move(caller.machine);
    await pause(1_000); // the last of what was on its way
    const start = performance.now();
    await isBack();
    t.diagnostic(`seen and heard again after ${Math.round(performance.now() - start)} ms`);
    await assertStays(alice, bob, roomId, member);
  });

  await step("after a crash it is out of the call within 20 s, then out of the room", (t) => assertEndsWith(caller, alice, inCall, roomId, t));
});

scenario.test("nobody drops out of the room when Parlour is killed and started again", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  const names = ["Alice", "Bob"];
  let callers, members;

  await step("two Element Calls are in a call", async () => {
    callers = await Promise.all(users.map((user) => scenario.call(user, roomId)));
    await Promise.all(callers.map((caller) => caller.sees(names, SEEN_WITHIN_MS)));
    members = await Promise.all(users.map((user) => membership(alice, user, roomId)));
    await delegated(2);
  });

  await step("Parlour is killed and started again", async (t) => {
    const before = await Promise.all(users.map((user) => delayedLeave(user, roomId)));
    await stack.parlour.kill();
    const start = performance.now();
    await stack.parlour.start();
    const took = performance.now() - start;
    t.diagnostic(`up after ${Math.round(took)} ms`);
    assert.ok(took < RESTART_WITHIN_MS * PATIENCE);
    for (const [i, user] of users.entries()) await restarts(user, roomId, before[i][0].delayed_since_ts);
  });

  await step("they see each other again, and never were out of the room", async (t) => {
    const took = await Promise.all(callers.map((caller) => caller.sees(names, BACK_WITHIN_MS)));
    t.diagnostic(`seen again after ${took.map(Math.round).join(", ")} ms`);
    for (const [i, user] of users.entries()) await assertStays(alice, user, roomId, members[i]);
    await pause(RELOAD_GRACE_MS + 2_000); // whatever would follow from the break has followed
    for (const [i, user] of users.entries()) await assertStays(alice, user, roomId, members[i]);
  });

  await step("the delegation has survived: after a crash one is out of the room", async (t) => {
    const [witness, caller] = callers;
    const shown = () => witness.videos().then((videos) => videos.filter(({ moving }) => moving).map(({ name }) => name));
    const start = performance.now();
    await scenario.crash(caller);
    await until("the membership is gone", OUT_OF_CALL_WITHIN_MS + OUT_OF_ROOM_WITHIN_MS, () => membership(alice, bob, roomId), (event) => !event);
    t.diagnostic(`out of the room after ${Math.round(performance.now() - start)} ms`);
    await until("and from the screen", SEEN_WITHIN_MS, shown, (list) => list.join() === "Alice");
    await assertStays(alice, alice, roomId, members[0]);
  });
});

scenario.test("a leave delegated through the homeserver is sent when the participant has left", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice"] });
  const [alice] = users;
  const url = stack.parlour.url.replace("http", "ws");
  const stateKey = `_${alice.userId}_${alice.deviceId}_m.call`;
  let peer, delayId;

  const delegate = (more) => delegateThroughHomeserver(alice, { room: roomId, member: "M", url, delayId, ...more });
  const isMember = () => membership(alice, alice, roomId);

  await step("a client joins through its homeserver and delegates", async () => {
    const { status, body } = await requestThroughHomeserver(alice, { room: roomId, member: "M", url });
    assert.equal(status, 200, JSON.stringify(body));
    delayId = await alice.scheduleLeave(roomId, stateKey, DELEGATED_DELAY_MS);
    await alice.setState(roomId, "org.matrix.msc3401.call.member", stateKey, { application: "m.call", call_id: "", device_id: alice.deviceId });
    peer = await scenario.open(Peer, "Alice", `${stack.pages.url}/peer/`, await scenario.browserOn("Alice"));
    await peer.join({ url, jwt: body.jwt }, {});
    const [before] = await delayedLeave(alice, roomId);
    const answer = await delegate();
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    await restarts(alice, roomId, before.delayed_since_ts);
  });

  await step("a delay that is unknown, or another room's, is refused", async () => {
    const elsewhere = await alice.createRoom({ name: "Elsewhere" });
    for (const more of [{ delayId: "syd_unknown" }, { room: elsewhere }]) {
      const { status, body } = await delegate(more);
      assert.deepEqual([status, body.errcode], [400, "M_INVALID_PARAM"], JSON.stringify(body));
    }
  });

  await step("who says farewell may be reloading; who does not come back is out of the room", async (t) => {
    const start = performance.now();
    await peer.page.evaluate(() => window.peer.leave());
    await pause(RELOAD_GRACE_MS - 1_000);
    assert.ok(await isMember(), "still in the room");
    await until("the membership is gone", OUT_OF_ROOM_WITHIN_MS, isMember, (event) => !event);
    t.diagnostic(`out of the room after ${Math.round(performance.now() - start)} ms`);
    assert.deepEqual(await delayedLeave(alice, roomId), [], "and no leave is left to be sent");
  });
});
