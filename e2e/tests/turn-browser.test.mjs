// Calls through TURN in real Chromium, on a network with a symmetric NAT and with firewalls: one to one with credentials from
// a real Synapse, and Element Call through each way to the TURN server. `TURN_SERVER=coturn` puts coturn in Parlour's place.
import { unavailable } from "../stack/own-network.mjs";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { startBrowser } from "../stack/browser.mjs";
import { homeThatTrusts } from "../stack/certificate.mjs";
import { SERVER, startNetwork } from "../stack/network.mjs";
import { OneToOne } from "../stack/one-to-one.mjs";
import { ElementCall } from "../stack/participant.mjs";
import { chosenPairs, steer, WAYS } from "../stack/relay.mjs";
import { startStack } from "../stack/stack.mjs";
import { COTURN } from "../stack/turn-server.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const SEEN_WITHIN_MS = 10_000;
const HEARD_WITHIN_MS = 10_000;

/** Two people at two machines, the first behind a symmetric NAT. */
class TwoPlaces extends Scenario {
  skip = unavailable;

  async start() {
    this.participants = new Set();
    this.rooms = 0;
    this.network = startNetwork();
    this.stack = await startStack(() => {}, { address: SERVER.ipv4, turn: true });
    this.places = [await this.network.machineBehindNat("home"), await this.network.machine("office")];
    this.browsers = [];
    for (const machine of this.places) {
      const home = homeThatTrusts({ folder: path.join(this.stack.folder, machine.name), authority: this.stack.turn.tls.authority });
      this.browsers.push(await startBrowser({ machine, home, secureOrigins: [this.stack.pages.url] }));
    }
  }

  async stop() {
    for (const browser of this.browsers ?? []) await browser.close();
    await this.stack?.stop();
    await this.network?.stop();
  }
}

const scenario = TwoPlaces.forThisFile();

for (const [name, policies, ways] of [
  ["both relayed", ["relay", "relay"], [["relay", "relay"], ["relay", "relay"]]],
  ["who is behind the NAT relayed, the other one not", ["relay", "all"], [["relay", "host"], ["host", "relay"]]],
]) {
  scenario.test(`a one-to-one call with Synapse's credentials, ${name}`, async (step) => {
    const { users } = await scenario.room({ names: ["Alice", "Bob"] });
    const [alice, bob] = await Promise.all(users.map((user, i) => scenario.open(OneToOne, user.displayName, `${scenario.stack.pages.url}/peer/`, { browser: scenario.browsers[i] })));

    await step("each sees and hears the other", async () => {
      await alice.call(bob, users.map((user, i) => ({ policy: policies[i], user: policies[i] === "relay" ? user : undefined })));
      await Promise.all([alice.sees(["Bob"], SEEN_WITHIN_MS), bob.sees(["Alice"], SEEN_WITHIN_MS)]);
      await Promise.all([alice.hears(1, HEARD_WITHIN_MS), bob.hears(1, HEARD_WITHIN_MS)]);
    });

    await step("through the relay", async () => {
      const pairs = await Promise.all([alice, bob].map((person) => person.chosenPair()));
      assert.deepEqual(pairs.map(({ local, remote }) => [local, remote]), ways, JSON.stringify(pairs));
      if (policies[1] === "all") assert.notDeepEqual(openRelayPorts(), [], "a peer elsewhere is reached through a port");
    });
  });
}

const UDP = "meta l4proto udp";
/** Dropped where nothing but web servers is let through to: TLS on 443, and what these tests have on ports of their own. */
const ALL_BUT_THE_WEB = ({ synapse, pages }) => {
  const ports = [443, ...[synapse.url, pages.url].map((url) => new URL(url).port)];
  return `meta l4proto tcp tcp dport != { ${ports.join()} }`;
};

for (const [name, transport, policy, blocked] of [
  ["relayed over UDP", "udp", "relay", () => []],
  ["relayed over TCP, UDP blocked", "tcp", "relay", () => [UDP]],
  ["relayed over TLS, UDP blocked", "tls", "relay", () => [UDP]],
  // What Element Call finds by itself. coturn is unknown to it.
  ...(COTURN ? [] : [["where only TLS on port 443 gets through", "tls", "all", (stack) => [UDP, ALL_BUT_THE_WEB(stack)]]]),
]) {
  scenario.test(`Element Call ${name}`, async (step) => {
    const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
    const { stack, browsers, places } = scenario;
    const names = ["Alice", "Bob"];
    const callers = [];
    // Parlour tells participants no way over UDP, but an app may bring its own; of coturn it tells nothing.
    const iceServers = COTURN || transport === "udp" ? stack.turn.iceServers : undefined;
    const prepare = (context) => context.addInitScript(steer, { way: policy === "relay" ? WAYS[transport] : "", policy, iceServers });
    for (const machine of places) machine.block(...blocked(stack));
    const openBefore = openRelayPorts(); // a page that closes does not end its allocation

    await step("two see each other within 10 s of joining", async (t) => {
      for (const [i, user] of users.entries()) {
        callers.push(await scenario.open(ElementCall, user.displayName, stack.elementCallLink(user, roomId), { browser: browsers[i], prepare }));
      }
      const seen = await Promise.all(callers.map((caller) => caller.sees(names, SEEN_WITHIN_MS)));
      t.diagnostic(`seen after ${seen.map((ms) => Math.round(ms)).join(", ")} ms`);
    });

    await step("each hears the other", () => Promise.all(callers.map((caller) => caller.hears(1, HEARD_WITHIN_MS))));

    await step("through the relay, reached as meant", async () => {
      for (const caller of callers) {
        await until(`${caller.name}'s connections are relayed`, HEARD_WITHIN_MS, () => caller.view.evaluate(chosenPairs), (pairs) => {
          return pairs.length > 0 && pairs.every(({ local, relayProtocol }) => local === "relay" && relayProtocol === transport);
        });
      }
    });

    await step("with no relay port opened for it", async () => {
      const opened = openRelayPorts().filter((port) => !openBefore.includes(port));
      if (!COTURN) assert.deepEqual(opened, []);
    });

    await step("who leaves is gone within 2 s", async () => {
      await callers[1].leave();
      await callers[0].loses("Bob", 2_000);
    });
  });
}

/** UDP ports of the dynamic range that are bound on the server's machine, at its address on the network. */
function openRelayPorts() {
  const sockets = readFileSync("/proc/self/net/udp", "utf8").trim().split("\n").slice(1);
  const bound = sockets.map((line) => line.trim().split(/\s+/)[1].split(":"));
  const address = Buffer.from(SERVER.ipv4.split(".").map(Number)).readUInt32LE().toString(16).toUpperCase().padStart(8, "0");
  return bound.filter(([host, port]) => host === address && parseInt(port, 16) >= 49_152).map(([, port]) => parseInt(port, 16));
}
