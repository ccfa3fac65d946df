// The TURN server under test, alone or in the stack: Parlour, or coturn when TURN_SERVER=coturn says so.
import { randomBytes } from "node:crypto";
import path from "node:path";
import { makeCertificate } from "./certificate.mjs";
import { startCoturn } from "./coturn.mjs";
import { NETWORKS, SERVER } from "./network.mjs";
import { startParlour } from "./parlour.mjs";
import { restCredentials } from "./turn-client.mjs";

export const COTURN = process.env.TURN_SERVER === "coturn";

/** The well-known ports: the network is the test's own, so they are free. */
const PORT = 3478;
const TLS_PORT = { parlour: 443, coturn: 5349 };
const HTTP_PORT = 8080;

const REALM = "parlour.test";

/**
 * What Parlour is told on the network of network.mjs, where private addresses are all there is. One user and one address
 * make as many allocations as a whole town.
 */
function turnSection({ secret, denyPeers = [], more }) {
  return { shared_secret: secret, allow_peers: NETWORKS, deny_peers: denyPeers, allocations_per_user: 100_000, allocations_per_address: 100_000, allocations: 100_000, ...more };
}

/**
 * The TURN server alone.
 * @param {{folder: string, kind?: "parlour" | "coturn", denyPeers?: string[], turn?: object, workers?: number, binary?: string, command?: string[], coturnMore?: string[]}} options
 *   `turn`: more of Parlour's [turn] section; `command`: words before the program, such as `taskset`; `coturnMore`: arguments.
 */
export async function startTurnServer({ folder, kind = COTURN ? "coturn" : "parlour", denyPeers = [], turn, workers, binary, command, coturnMore }) {
  const addresses = [SERVER.ipv4, SERVER.ipv6];
  const secret = randomBytes(32).toString("hex");
  const tls = { ...makeCertificate({ folder: path.join(folder, "tls"), addresses }), port: TLS_PORT[kind] };
  const common = { folder: path.join(folder, kind), command };
  const server =
    kind === "coturn"
      ? await startCoturn({ ...common, addresses, port: PORT, realm: REALM, secret, tls, denyPeers, more: coturnMore })
      : await startParlour({
          ...common,
          address: SERVER.ipv4,
          port: HTTP_PORT,
          mediaPort: PORT,
          mediaAddresses: addresses,
          homeserver: "http://127.0.0.1:8008", // nobody asks it anything
          serverName: REALM,
          turn: turnSection({ secret, denyPeers, more: turn }),
          tls,
          workers,
          binary,
        });
  return Object.assign(server, { kind, secret, tls, port: PORT });
}

/**
 * The TURN server of a whole stack: what Synapse is told (`uris`, `secret`), what Parlour is started with (`parlour`), what
 * pages can use in the place of what Parlour gives them (`iceServers`), and when coturn stands in, what that is started with
 * (`coturn`).
 */
export function planTurn({ folder, address }) {
  const kind = COTURN ? "coturn" : "parlour";
  const secret = randomBytes(32).toString("hex");
  const tls = { ...makeCertificate({ folder: path.join(folder, "tls"), addresses: [address] }), port: TLS_PORT[kind] };
  const uris = [`turn:${address}:${PORT}?transport=udp`, `turn:${address}:${PORT}?transport=tcp`, `turns:${address}:${tls.port}?transport=tcp`];
  const { username, password: credential } = restCredentials(secret, "@guest:parlour.test", 3_600);
  const plan = { secret, tls, uris, iceServers: [{ urls: uris, username, credential }] };
  if (!COTURN) return { ...plan, parlour: { mediaPort: PORT, turn: turnSection({ secret }), tls } };
  const coturn = { folder: path.join(folder, kind), addresses: [address], port: PORT, realm: REALM, secret, tls };
  return { ...plan, parlour: {}, coturn };
}
