// The TURN server under test, alone: Parlour, or coturn when TURN_SERVER=coturn says so.
import { randomBytes } from "node:crypto";
import path from "node:path";
import { makeCertificate } from "./certificate.mjs";
import { startCoturn } from "./coturn.mjs";
import { NETWORKS, SERVER } from "./network.mjs";
import { startParlour } from "./parlour.mjs";

export const COTURN = process.env.TURN_SERVER === "coturn";

/** The well-known ports: the network is the test's own, so they are free. */
const PORT = 3478;
const TLS_PORT = { parlour: 443, coturn: 5349 };
const HTTP_PORT = 8080;

export const REALM = "parlour.test";

/**
 * What Parlour is told on the network of network.mjs, where private addresses are all there is. One user and one address
 * make as many allocations as a whole town.
 */
export function turnSection({ secret, denyPeers = [], more = {} }) {
  return { shared_secret: secret, allow_peers: NETWORKS, deny_peers: denyPeers, allocations_per_user: 100_000, allocations_per_address: 100_000, allocations: 100_000, ...more };
}

export function turnUris({ address = SERVER.ipv4, port = PORT, tlsPort }) {
  return [`turn:${address}:${port}?transport=udp`, `turn:${address}:${port}?transport=tcp`, `turns:${address}:${tlsPort}?transport=tcp`];
}

/**
 * @param {{folder: string, kind?: "parlour" | "coturn", denyPeers?: string[], turn?: object, binary?: string, command?: string[], coturnMore?: string[]}} options
 *   `turn`: more of Parlour's [turn] section; `command`: words before the program, such as `taskset`.
 */
export async function startTurnServer({ folder, kind = COTURN ? "coturn" : "parlour", denyPeers = [], turn = {}, binary, command, coturnMore }) {
  const addresses = [SERVER.ipv4, SERVER.ipv6];
  const secret = randomBytes(32).toString("hex");
  const tls = makeCertificate({ folder: path.join(folder, "tls"), addresses });
  const tlsPort = TLS_PORT[kind];
  const server =
    kind === "coturn"
      ? await startCoturn({ folder: path.join(folder, kind), addresses, port: PORT, tlsPort, realm: REALM, secret, tls, denyPeers, more: coturnMore, command })
      : await startParlour({
          folder: path.join(folder, kind),
          address: SERVER.ipv4,
          port: HTTP_PORT,
          mediaPort: PORT,
          mediaAddresses: addresses,
          homeserver: "http://127.0.0.1:8008", // nobody asks it anything
          serverName: REALM,
          turn: turnSection({ secret, denyPeers, more: turn }),
          tls: { ...tls, port: tlsPort },
          binary,
          command,
        });
  return { ...server, kind, secret, tls, port: PORT, tlsPort, ipv4: SERVER.ipv4, ipv6: SERVER.ipv6 };
}
