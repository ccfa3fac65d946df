// Parlour itself as the stack runs it: the built binary with a config of three lines and ports on loopback.
import { existsSync, writeFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import { REPOSITORY } from "./places.mjs";
import { Service } from "./service.mjs";

/** It binds its sockets and makes a key at first start; more than a second means something is wrong. */
const START_TIMEOUT_MS = 15_000;

/** Where cargo leaves the binary of the profile that tests and the demo share. */
export const BINARY = path.join(process.env.CARGO_TARGET_DIR || path.join(REPOSITORY, "target"), "debug/parlour");

/**
 * @param {{folder: string, port: number, mediaPort: number, homeserver: string, serverName: string, webRoot?: string}} options
 *   `port` serves HTTP and WebSockets, `mediaPort` takes media over UDP and TCP.
 */
export async function startParlour({ folder, port, mediaPort, homeserver, serverName, webRoot }) {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run \`cargo build\` first.`);
  mkdirSync(path.join(folder, "data"), { recursive: true });
  const url = `http://127.0.0.1:${port}`;
  const text = (value) => JSON.stringify(value); // a JSON string is a TOML string
  const config = path.join(folder, "parlour.toml");
  writeFileSync(
    config,
    `server_name = ${text(serverName)}
homeserver = ${text(homeserver)}
public_url = ${text(url)}
data_dir = ${text(path.join(folder, "data"))}

[http]
listen = "127.0.0.1:${port}"
${webRoot ? `web_root = ${text(webRoot)}\n` : ""}
[media]
udp = "127.0.0.1:${mediaPort}"
tcp = "127.0.0.1:${mediaPort}"
public_addresses = ["127.0.0.1"]
`,
  );
  const service = new Service("Parlour", BINARY, ["serve", "--config", config], {
    log: path.join(folder, "parlour.log"),
    env: { NO_COLOR: "1", RUST_LOG: process.env.RUST_LOG ?? "info,parlour=debug" },
  });
  await service.answers(`${url}/healthz`, START_TIMEOUT_MS);
  return { service, url, stop: () => service.stop() };
}
