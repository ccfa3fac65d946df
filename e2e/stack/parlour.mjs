// Parlour itself as the stack runs it: the built binary with a short config and, mostly, ports on loopback.
import { execFileSync } from "node:child_process";
import { existsSync, writeFileSync, mkdirSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { REPOSITORY } from "./places.mjs";
import { Service } from "./service.mjs";

/** It binds its sockets and makes a key at first start; more than a second means something is wrong. */
const START_TIMEOUT_MS = 15_000;

/** Where cargo leaves the binary of the profile that tests and the demo share. */
export const BINARY = path.join(process.env.CARGO_TARGET_DIR || path.join(REPOSITORY, "target"), "debug/parlour");

/** A Parlour that runs; see [`Parlour`] for the options. */
export async function startParlour(options) {
  const parlour = new Parlour(options);
  await parlour.start();
  return parlour;
}

/** A configured Parlour, which may be started, stopped or killed, and started again. */
export class Parlour {
  /**
   * @param {{folder: string, port: number, mediaPort: number, homeserver: string, serverName: string, webRoot?: string, address?: string, publicUrl?: string,
   *   workers?: number, mediaAddresses?: string[], turn?: object, tls?: {certificate: string, key: string, port: number}, more?: object, binary?: string, command?: string[]}} options
   *   `port` serves HTTP and WebSockets, `mediaPort` takes media over UDP and TCP, at `mediaAddresses`. `publicUrl` is what
   *   clients are told, when something stands before it. `turn` is the config's section of that name, `more` are further ones.
   *   With `tls` clients are told to use it. `command`: words before the program, such as `taskset`.
   */
  constructor({
    folder, port, mediaPort, homeserver, serverName, webRoot, address = "127.0.0.1", publicUrl, mediaAddresses = [address], workers, turn, tls, more,
    binary = BINARY, command = [],
  }) {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: run \`cargo build\` first.`);
    mkdirSync(path.join(folder, "data"), { recursive: true });
    this.folder = folder;
    /** Where this process asks. */
    this.url = `http://${address}:${port}`;
    this.publicUrl = publicUrl ?? (tls ? `https://${address}:${tls.port}` : this.url);
    this.words = [...command, binary];
    this.config = path.join(folder, "parlour.toml");
    const media = mediaAddresses.some(net.isIPv6) ? `[::]:${mediaPort}` : `${address}:${mediaPort}`;
    const config = {
      server_name: serverName,
      homeserver,
      public_url: this.publicUrl,
      data_dir: path.join(folder, "data"),
      http: { listen: `${address}:${port}`, web_root: webRoot },
      media: { udp: media, tcp: media, public_addresses: mediaAddresses, workers },
      turn,
      tls: tls && { listen: `${address}:${tls.port}`, certificate_file: tls.certificate, private_key_file: tls.key, advertised_port: tls.port },
      ...more,
    };
    writeFileSync(this.config, toml(config), { mode: 0o600 });
  }

  async start() {
    const [program, ...args] = [...this.words, "serve", "--config", this.config];
    this.service = new Service("Parlour", program, args, {
      log: path.join(this.folder, "parlour.log"),
      env: { NO_COLOR: "1", RUST_LOG: process.env.RUST_LOG ?? "info,parlour=debug" },
    });
    await this.service.answers(`${this.url}/healthz`, START_TIMEOUT_MS);
  }

  /** Runs another command of it with the same config and returns what it printed. */
  run(...args) {
    const [program, ...words] = [...this.words, ...args, "--config", this.config];
    return execFileSync(program, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** The application service's registration for Synapse, in a file. */
  register() {
    const file = path.join(this.folder, "registration.yaml");
    this.run("registration", "--output", file);
    return file;
  }

  /** The present value of a metric without labels. */
  async metric(name) {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(text.match(new RegExp(`^${name} (.*)$`, "m"))?.[1]);
  }

  async stop() {
    await this.service?.stop();
  }

  /** As when the machine loses power: no farewell to anybody. */
  async kill() {
    this.service.child.kill("SIGKILL");
    await this.service.ended;
  }
}

/** Values first, then sections of values; a JSON string, number or list of them is a TOML one. */
function toml(fields) {
  const isSection = ([, value]) => typeof value === "object" && !Array.isArray(value);
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  const values = entries.filter((entry) => !isSection(entry)).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
  const sections = entries.filter(isSection).map(([name, section]) => `\n[${name}]\n${toml(section)}`);
  return [...values, ...sections].join("");
}
