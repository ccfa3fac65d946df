// Debian's coturn: what Parlour's TURN server is measured against, and what proves the tests themselves (`TURN_SERVER=coturn`).
import { mkdirSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { Service } from "./service.mjs";
import { until } from "./until.mjs";

const START_TIMEOUT_MS = 15_000;

/**
 * @param {{folder: string, addresses: string[], port: number, realm: string, secret: string, tls: {certificate: string, key: string, port: number},
 *   denyPeers?: string[], more?: string[], command?: string[]}} options
 *   `more`: further arguments; `command`: words before the program, such as `taskset`.
 */
export async function startCoturn({ folder, addresses, port, realm, secret, tls, denyPeers = [], more = [], command = [] }) {
  mkdirSync(folder, { recursive: true });
  const words = [
    ...command, "turnserver", "-n", "--simple-log", "--log-file", "stdout", "--no-cli", "--pidfile", path.join(folder, "pid"),
    ...addresses.flatMap((address) => ["--listening-ip", address, "--relay-ip", address]),
    "--listening-port", port, "--tls-listening-port", tls.port, "--cert", tls.certificate, "--pkey", tls.key,
    "--realm", realm, "--use-auth-secret", "--static-auth-secret", secret,
    ...denyPeers.map((peer) => `--denied-peer-ip=${peer}`), ...more,
  ].map(String);
  const service = new Service("coturn", words[0], words.slice(1), { log: path.join(folder, "coturn.log"), cwd: folder });
  const listens = () => Promise.all(addresses.map((address) => accepts(address, tls.port))).then((all) => all.every(Boolean));
  await until("coturn listens", START_TIMEOUT_MS, listens, (listening) => {
    if (service.how) throw new Error(`coturn ${service.how}:\n${service.lastLines(20)}`);
    return listening;
  });
  return { service, stop: () => service.stop() };
}

/** Whether a TCP connection is accepted. */
function accepts(address, port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, address, () => resolve(true));
    socket.once("error", () => resolve(false)).once("close", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
