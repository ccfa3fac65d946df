// Who can reach the server by UDP does so directly, though a TURN server is there too: the relay and TCP are for those who cannot.
import { Peer } from "../stack/participant.mjs";
import { chosenPairs, steer } from "../stack/relay.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** ICE has tried all ways by then, and settled. */
const SETTLED_WITHIN_MS = 10_000;

for (const [dialect, singlePeerConnection] of [["v0", false], ["v1", true]]) {
  scenario.test(`media goes directly by ${dialect}`, async (step) => {
    const { stack } = scenario;
    const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
    // Watched, not steered: all candidates, with the servers that the page is given.
    const watch = (context) => context.addInitScript(steer, { policy: "all" });
    const peers = [];

    await step("both join", async () => {
      for (const user of users) {
        const peer = await scenario.open(Peer, user.displayName, `${stack.pages.url}/peer/`, { prepare: watch });
        await peer.join(await wayIn(stack.parlour.url, user, roomId), { camera: true, microphone: true, singlePeerConnection });
        peers.push(peer);
      }
      for (const peer of peers) await peer.hears(1, SETTLED_WITHIN_MS);
    });

    await step("by UDP, without the relay", async () => {
      for (const peer of peers) {
        const pairs = () => peer.page.evaluate(chosenPairs);
        const direct = ({ local, protocol }) => local !== "relay" && protocol === "udp";
        await until(`${peer.name} has chosen`, SETTLED_WITHIN_MS, pairs, (all) => all.length > 0 && all.every(direct));
      }
    });
  });
}
