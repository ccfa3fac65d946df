// Calls of users of several servers: two with a Parlour each, and one whose users are guests on the first one's. The servers are real
// Synapses that federate over TLS; names resolve only here.
import { unavailable } from "../stack/own-network.mjs";
import assert from "node:assert/strict";
import { startBrowser } from "../stack/browser.mjs";
import { homeThatTrusts } from "../stack/certificate.mjs";
import { startFederation } from "../stack/federation.mjs";
import { startNetwork } from "../stack/network.mjs";
import { ElementCall, Peer } from "../stack/participant.mjs";
import { scratchFolder } from "../stack/places.mjs";
import { requestSfu, requestThroughHomeserver, requestToken } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

/** As on one server: two more round trips between servers do not show. */
const SEEN_WITHIN_MS = 10_000;
const HEARD_WITHIN_MS = 10_000;
/** Who is thrown out is out of the call on the moderator's server this soon … */
const OUT_WITHIN_MS = 1_000;
/** … and on the others when they have been told. */
const OUT_ELSEWHERE_WITHIN_MS = 3_000;
/** Who says farewell may be reloading the page; after three seconds Parlour ends the membership. */
const OUT_OF_ROOM_WITHIN_MS = 6_000;

class ThreeServers extends Scenario {
  skip = unavailable;

  async start() {
    this.participants = new Set();
    this.rooms = 0;
    this.network = startNetwork();
    const machine = await this.network.machine("people");
    this.stack = await startFederation(this.network, {
      "east.test": { guests: ["south.test"] },
      "west.test": {},
      "south.test": { guestOf: "east.test", bySrv: true },
    });
    const home = homeThatTrusts({ folder: scratchFolder("home"), authority: this.stack.tls.authority });
    this.browser = await startBrowser({ machine, home });
  }

  async stop() {
    await super.stop();
    await this.network?.stop();
  }

  /** A new room of a user of the first server, with a user of each, by name and server. */
  async room({ encrypted = false, people }) {
    const round = (this.rooms += 1);
    const users = [];
    for (const [name, server] of people) users.push(await this.stack.register(server, `${name.toLowerCase()}${round}`, { displayName: name }));
    const [host, ...guests] = users;
    const roomId = await host.createRoom({ name: `Call ${round}`, encrypted });
    for (const guest of guests) {
      await host.moderate(roomId, "invite", guest);
      await guest.join(roomId, people[0][1]);
    }
    return { roomId, users };
  }
}

const scenario = ThreeServers.forThisFile();

const parlourOf = (name) => scenario.stack.servers[name].parlour;
const claims = (jwt) => JSON.parse(Buffer.from(jwt.split(".")[1], "base64"));

/** The calls that are going on at a server, as its operator sees them. */
const callsAt = (name) => JSON.parse(parlourOf(name).run("calls", "list", "--json")).calls;

scenario.test("users of three servers meet, each on the Parlour that is theirs", async (step) => {
  const people = [["Alice", "east.test"], ["Bob", "west.test"], ["Carol", "south.test"]];
  const names = people.map(([name]) => name);
  const { roomId, users } = await scenario.room({ encrypted: true, people });
  const [alice, bob, carol] = users;
  const callers = [];

  await step("three see each other within 10 s of joining", async (t) => {
    for (const user of users) callers.push(await scenario.open(ElementCall, user.displayName, scenario.stack.elementCallLink(user, roomId)));
    const seen = await Promise.all(callers.map((caller) => caller.sees(names, SEEN_WITHIN_MS)));
    t.diagnostic(`seen after ${seen.map(Math.round).join(", ")} ms`);
  });

  await step("each hears the two others", async () => {
    for (const caller of callers) await caller.hears(2, HEARD_WITHIN_MS);
  });

  await step("all are at both Parlours, and publish on theirs alone", async () => {
    for (const [server, publishers] of [["east.test", [alice, carol]], ["west.test", [bob]]]) {
      const wanted = users.map(({ userId }) => [userId, publishers.some((user) => user.userId === userId) ? 2 : 0]);
      const [{ participants }] = callsAt(server).filter((call) => call.room_id === roomId);
      assert.deepEqual(Object.fromEntries(participants.map(({ user_id: user, tracks }) => [user, tracks])), Object.fromEntries(wanted), server);
    }
    for (const [server, user, canPublish] of [
      ["east.test", alice, true], ["east.test", bob, false], ["east.test", carol, true],
      ["west.test", alice, false], ["west.test", bob, true], ["west.test", carol, false],
    ]) {
      const { status, body } = await requestSfu(parlourOf(server).url, { room: roomId, device: "OTHER", openIdToken: await user.openIdToken() });
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal(claims(body.jwt).video.canPublish, canPublish, `${user.userId} at ${server}`);
    }
  });

  await step("who is banned is out at both", async (t) => {
    await alice.moderate(roomId, "ban", bob);
    const isOut = (server) => until(`Bob is out at ${server}`, server === "east.test" ? OUT_WITHIN_MS : OUT_ELSEWHERE_WITHIN_MS, () => callsAt(server), (calls) => {
      return !JSON.stringify(calls).includes(bob.userId);
    });
    t.diagnostic(`out after ${(await Promise.all(["east.test", "west.test"].map(isOut))).map(Math.round).join(", ")} ms`);
    await Promise.all([callers[0], callers[2]].map((caller) => caller.sees(["Alice", "Carol"], SEEN_WITHIN_MS)));
  });

  await step("a guest who closes the page is out of the room's call too", async (t) => {
    await callers[2].page.close();
    const members = () => alice.callMembers(roomId).then((events) => events.map(({ sender }) => sender));
    t.diagnostic(`out after ${Math.round(await until("Carol is out", OUT_OF_ROOM_WITHIN_MS, members, (senders) => !senders.includes(carol.userId)))} ms`);
    await callers[0].sees(["Alice"], SEEN_WITHIN_MS);
  });
});

scenario.test("users of other servers listen on a Parlour that is not theirs", async (step) => {
  const people = [["Alice", "east.test"], ["Bob", "west.test"], ["Dave", "west.test"], ["Erin", "west.test"]];
  const { roomId, users } = await scenario.room({ people });
  const [alice, bob, dave, erin] = users;
  const east = parlourOf("east.test");
  const url = east.publicUrl.replace("http", "ws");
  const page = `${scenario.stack.pages.url}/peer/`;
  const identity = `${alice.userId}:${alice.deviceId}`;
  let host, listener;

  /** The two ways: with an OpenID token, and through one's own homeserver. */
  const ask = async (user) => requestToken(east.url, { room: roomId, user: user.userId, device: user.deviceId, member: "M", openIdToken: await user.openIdToken() });
  const askThroughHomeserver = (user) => requestThroughHomeserver(user, { server: "east.test", room: roomId, member: "M", url });
  const refused = ({ status, body }) => status === 403 && body.errcode === "M_FORBIDDEN";
  const others = () => host.page.evaluate(() => window.peer.others()).then(([list]) => list);

  await step("one of its own users is in the call", async () => {
    host = await scenario.open(Peer, "Alice", page);
    const { body } = await requestSfu(east.url, { room: roomId, device: alice.deviceId, openIdToken: await alice.openIdToken() });
    await host.join(body, { camera: true, microphone: true });
  });

  for (const [how, user, way] of [["with an OpenID token", bob, ask], ["through the own homeserver, from server to server", dave, askThroughHomeserver]]) {
    await step(`a remote user who asks ${how} sees and hears`, async () => {
      const { status, body } = await way(user);
      assert.equal(status, 200, JSON.stringify(body));
      assert.equal(claims(body.jwt).video.canPublish, false);
      listener = await scenario.open(Peer, user.displayName, page);
      await listener.join({ url, jwt: body.jwt }, {});
      await listener.sees([identity], SEEN_WITHIN_MS);
      await listener.hears(1, HEARD_WITHIN_MS);
    });
  }

  await step("and may not publish", () => assert.rejects(listener.page.evaluate(() => window.peer.publish()), /permission/i));

  await step("who has left the room gets nothing, on neither way", async () => {
    await erin.leave(roomId);
    for (const way of [ask, askThroughHomeserver]) {
      await until("Erin is refused", OUT_ELSEWHERE_WITHIN_MS, () => way(erin), refused); // the server hears of it from the other one
    }
  });

  await step("who leaves the room elsewhere is out here", async (t) => {
    await bob.leave(roomId);
    t.diagnostic(`out after ${Math.round(await until("Bob is out", OUT_ELSEWHERE_WITHIN_MS, others, (list) => list.length === 1, 20))} ms`);
  });

  await step("a server that the room shuts out is out", async (t) => {
    await alice.setState(roomId, "m.room.server_acl", "", { allow: ["*"], deny: ["west.test"] });
    t.diagnostic(`out after ${Math.round(await until("Dave is out", OUT_WITHIN_MS, others, (list) => list.length === 0, 20))} ms`);
    for (const way of [ask, askThroughHomeserver]) assert.ok(refused(await way(dave)));
  });
});
