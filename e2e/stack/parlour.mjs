// Parlour itself as the stack runs it: the built binary with a short config and, mostly, ports on loopback.
import { existsSync, writeFileSync, mkdirSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { REPOSITORY } from "./places.mjs";
import { Service } from "./service.mjs";

/** It binds its sockets and makes a key at first start; more than a second means something is wrong. */
const START_TIMEOUT_MS = 15_000;

/** Where cargo leaves the binary of the profile that tests and the demo share. */
export const BINARY = path.join(process.env.CARGO_TARGET_DIR || path.join(REPOSITORY, "target"), "debug/parlour");

/**
 * @param {{folder: string, port: number, mediaPort: number, homeserver: string, serverName: string, webRoot?: string, address?: string, workers?: number,
 *   mediaAddresses?: string[], turn?: object, tls?: {certificate: string, key: string, port: number}, binary?: string, command?: string[]}} options
 *   `port` serves HTTP and WebSockets, `mediaPort` takes media over UDP and TCP, at `mediaAddresses`. `turn` is the config's
 *   section of that name. With `tls` clients are told to use it. `command`: words before the program, such as `taskset`.
 * @returns `url` is where this process asks, `publicUrl` what clients are told.
 */
export async function startParlour({
  folder, port, mediaPort, homeserver, serverName, webRoot, address = "127.0.0.1", mediaAddresses = [address], workers, turn, tls, binary = BINARY, command = [],
}) {
  if (!existsSync(binary)) throw new Error(`${binary} is missing: run \`cargo build\` first.`);
  mkdirSync(path.join(folder, "data"), { recursive: true });
  const url = `http://${address}:${port}`;
  const publicUrl = tls ? `https://${address}:${tls.port}` : url;
  const media = mediaAddresses.some(net.isIPv6) ? `[::]:${mediaPort}` : `${address}:${mediaPort}`;
  const config = path.join(folder, "parlour.toml");
  writeFileSync(
    config,
    toml({
      server_name: serverName,
      homeserver,
      public_url: publicUrl,
      data_dir: path.join(folder, "data"),
      http: { listen: `${address}:${port}`, web_root: webRoot },
      media: { udp: media, tcp: media, public_addresses: mediaAddresses, workers },
      turn,
      tls: tls && { listen: `${address}:${tls.port}`, certificate_file: tls.certificate, private_key_file: tls.key, advertised_port: tls.port },
    }),
    { mode: 0o600 },
  );
  const words = [...command, binary, "serve", "--config", config];
  const service = new Service("Parlour", words[0], words.slice(1), {
    log: path.join(folder, "parlour.log"),
    env: { NO_COLOR: "1", RUST_LOG: process.env.RUST_LOG ?? "info,parlour=debug" },
  });
  await service.answers(`${url}/healthz`, START_TIMEOUT_MS);
  return { service, url, publicUrl, stop: () => service.stop() };
}

/** Values first, then sections of values; a JSON string, number or list of them is a TOML one. */
function toml(fields) {
  const isSection = ([, value]) => typeof value === "object" && !Array.isArray(value);
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  const values = entries.filter((entry) => !isSection(entry)).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
  const sections = entries.filter(isSection).map(([name, section]) => `\n[${name}]\n${toml(section)}`);
  return [...values, ...sections].join("");
}
