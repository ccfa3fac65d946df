// Measures TURN servers side by side: `node e2e/bench/turn.mjs [--rounds 7] [SERVER …]`, where a server is "coturn" or the path of a
// Parlour binary (cargo build --release). Default: coturn and target/release/parlour. Prints a table of medians.
//
// The server runs on CPU 1 with one relay thread, coturn's uclient and its echoing peer on CPU 0, on the machines of
// stack/network.mjs. Servers alternate, the first round is dropped. What counts is the server's CPU time per relayed packet: uclient
// is slower than the servers, so packets per second would be its own. On veth the kernel's receive work is charged to the
// sender: compare servers, do not take the numbers for those of network cards.
import { unavailable } from "../stack/own-network.mjs";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { SERVER, startNetwork } from "../stack/network.mjs";
import { removeFolder, REPOSITORY, scratchFolder } from "../stack/places.mjs";
import { bareAllocate, METHOD, request, TurnClient } from "../stack/turn-client.mjs";
import { startTurnServer } from "../stack/turn-server.mjs";

const CLIENTS = path.join(path.dirname(fileURLToPath(import.meta.url)), "clients.mjs");
const SERVER_CPU = ["taskset", "--cpu-list", "1"];
const CLIENT_CPU = ["taskset", "--cpu-list", "0"];

/** Of /proc/PID/stat, on every Linux that people run. */
const TICKS_PER_SECOND = 100;

/** Addresses of the client's machine: what is limited per source shall not limit the measurement. */
const SOURCES = Array.from({ length: 100 }, (_, i) => `10.77.0.${100 + i}`);

/** Processes of uclient at a time, each from an address of its own, and sessions of each. */
const PROCESSES = 4;
const SESSIONS = 25;

const MESSAGES = 2_000;

/** uclient binds two channels with numbers drawn from 16,384 for each session, and gives up when they are the same. */
const ATTEMPTS = 3;

const LOADS = {
  "channel, UDP, 160 B": ["-l", "160"],
  "channel, UDP, 1100 B": ["-l", "1100"],
  "Send indication, UDP, 160 B": ["-s", "-l", "160"],
  "channel, TCP, 160 B": ["-t", "-l", "160"],
  // Faster, and uclient leaves half of what it has got in OpenSSL's buffer, whichever the server.
  "channel, TLS, 160 B": ["-t", "-S", "-l", "160", "-z", "5"],
  "relay to relay, UDP, 160 B": ["-y", "-l", "160"],
};

const ALLOCATIONS = 2_000;
const FLOOD = 20_000;

/** Servers that free memory late shall have had the time. */
const SETTLE_MS = 1_000;

const { values, positionals } = parseArgs({ allowPositionals: true, options: { rounds: { type: "string", default: "7" }, loads: { type: "string", default: "" } } });
const servers = positionals.length > 0 ? positionals : ["coturn", path.join(REPOSITORY, "target/release/parlour")];
if (unavailable) throw new Error(unavailable);

const folder = scratchFolder("turn-bench");
const network = startNetwork();
const client = await network.machine("client");
const peer = await network.machine("peer");
for (const source of SOURCES) client.ip("addr add", `${source}/24`, "dev eth0");
peer.start("peer", CLIENT_CPU[0], [...CLIENT_CPU.slice(1), "turnutils_peer", "-L", peer.ipv4, "-p", "3480"], { log: path.join(folder, "peer.log") });

const medians = new Map(); // "what" → server → values, in order of appearance
const note = (what, server, value) => {
  const of = medians.get(what) ?? medians.set(what, new Map()).get(what);
  of.set(server, [...(of.get(server) ?? []), value]);
};

/** One round of one server: each load and each question to a fresh process. */
async function measure(index, keep) {
  for (const [name, args] of Object.entries(LOADS)) {
    if (!name.includes(values.loads)) continue;
    for (let attempt = 1; !(await withServer(index, (server) => load(server, name, args, keep))); attempt += 1) {
      if (attempt === ATTEMPTS) throw new Error(`uclient fails at: ${name}`);
    }
  }
  await withServer(index, async (server) => {
    const idle = server.service.residentKiB();
    const before = cpuSeconds(server);
    const crowd = new Clients("allocate", { port: server.port, secret: server.secret, count: ALLOCATIONS, peer: peer.ipv4 });
    const { seconds } = await crowd.line();
    keep("allocations per second", ALLOCATIONS / seconds);
    keep("allocations per second of the server's CPU", ALLOCATIONS / (cpuSeconds(server) - before));
    keep("memory per allocation, kB", (server.service.residentKiB() - idle) / ALLOCATIONS);
    crowd.go();
    await crowd.line();
    keep("memory per allocation that has permitted a peer, kB", (server.service.residentKiB() - idle) / ALLOCATIONS);
    await crowd.end();
  });
  await withServer(index, async (server) => {
    const idle = server.service.residentKiB();
    const strangers = new Clients("flood", { port: server.port, count: FLOOD });
    await strangers.end();
    await sleep(SETTLE_MS);
    keep(`memory after ${FLOOD} Allocates without credentials, each from another port, kB`, server.service.residentKiB() - idle);
    const turn = new TurnClient({ address: SERVER.ipv4, port: server.port });
    for (const [name, message] of [["Binding", request(METHOD.BINDING)], ["bare Allocate", bareAllocate()]]) {
      keep(`${name}: bytes of the answer per byte of the request`, (await turn.exchange(message)).length / message.length);
    }
    turn.close();
  });
}

/** All processes of uclient at once. False when one has failed: the load was less then. */
async function load(server, name, args, keep) {
  const before = cpuSeconds(server);
  const totals = await Promise.all(SOURCES.slice(0, PROCESSES).map((source) => uclient(server, source, args)));
  const seconds = cpuSeconds(server) - before;
  if (totals.includes(undefined)) return false;
  const sum = (field) => totals.reduce((all, total) => all + total[field], 0);
  keep(`${name}: CPU µs per relayed packet`, (seconds * 1e6) / (sum("sent") + sum("received")));
  keep(`${name}: lost, %`, (1 - sum("received") / sum("sent")) * 100);
  keep(`${name}: round trip, ms`, sum("roundTripMs") / totals.length);
  keep(`${name}: jitter, ms`, sum("jitterMs") / totals.length);
  return true;
}

async function withServer(index, work) {
  const parlour = servers[index] !== "coturn";
  const server = await startTurnServer({
    folder: path.join(folder, `${index}`),
    kind: parlour ? "parlour" : "coturn",
    turn: { megabits_per_allocation: 10_000, megabits_per_user: 100_000 },
    workers: 1,
    binary: parlour ? path.resolve(servers[index]) : undefined,
    command: SERVER_CPU,
    coturnMore: ["--relay-threads", "1"],
  });
  try {
    return await work(server);
  } finally {
    await server.stop();
  }
}

/** User and system time of the process so far. */
function cpuSeconds({ service }) {
  const fields = readFileSync(`/proc/${service.pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** One process of uclient to its end: what it has counted, or undefined when it failed. */
function uclient(server, source, args) {
  const words = ["-c", "-m", SESSIONS, "-n", MESSAGES, "-z", "1", "-L", source, "-u", "alice", "-W", server.secret, "-e", peer.ipv4, ...args];
  const port = args.includes("-S") ? server.tls.port : server.port;
  const [command, ...all] = client.inside(...CLIENT_CPU, "turnutils_uclient", ...words, "-p", port, SERVER.ipv4);
  const child = spawn(command, all, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output = (output + text).slice(-4_000)));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => {
      const number = (pattern) => Number(pattern.exec(output)?.[1]);
      const total = {
        sent: number(/mclient: tot_send_msgs=(\d+)/),
        received: number(/mclient: tot_send_msgs=\d+, tot_recv_msgs=(\d+)/),
        roundTripMs: number(/round trip delay ([\d.]+)/),
        jitterMs: number(/Average jitter ([\d.]+)/),
      };
      const good = status === 0 && total.sent > 0;
      if (!good) console.error(`uclient ended with ${status}: ${output.trimEnd().split("\n").at(-1)}`);
      resolve(good ? total : undefined);
    });
  });
}

/** bench/clients.mjs on the client's machine. */
class Clients {
  constructor(mode, options) {
    const [command, ...args] = client.inside(...CLIENT_CPU, process.execPath, CLIENTS, mode, JSON.stringify({ address: SERVER.ipv4, sources: SOURCES, ...options }));
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.ended = new Promise((resolve) => this.child.once("close", resolve));
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async line() {
    const { value } = await this.lines.next();
    if (!value) throw new Error("the clients have failed");
    return JSON.parse(value);
  }

  go() {
    this.child.stdin.write("\n");
  }

  async end() {
    this.child.stdin.end();
    if ((await this.ended) !== 0) throw new Error("the clients have failed");
  }
}

function print() {
  const names = servers.map((server) => path.basename(server));
  console.log(`| ${["", ...names, "spread"].join(" | ")} |\n|---${"|---:".repeat(names.length + 1)}|`);
  for (const [what, of] of medians) {
    const cells = [...servers.keys()].map((index) => median(of.get(index)));
    const spreads = [...servers.keys()].map((index) => of.get(index).map(short)).map((list) => `${list.at(0)}–${list.at(-1)}`);
    console.log(`| ${[what, ...cells.map(short), spreads.join("; ")].join(" | ")} |`);
  }
}

/** Sorts `list`. */
function median(list) {
  list.sort((one, other) => one - other);
  const middle = list.length >> 1;
  return list.length % 2 === 1 ? list[middle] : (list[middle - 1] + list[middle]) / 2;
}

function short(number) {
  return Math.abs(number) >= 100 ? Math.round(number).toString() : Number(number.toPrecision(3)).toString();
}

for (let round = 0; round < Number(values.rounds); round += 1) {
  for (const index of round % 2 === 0 ? servers.keys() : [...servers.keys()].reverse()) {
    console.error(`round ${round + 1} of ${values.rounds}: ${servers[index]}`);
    const keep = round > 0 || values.rounds === "1";
    await measure(index, (what, value) => keep && note(what, index, value));
  }
}
print();
await network.stop();
removeFolder(folder);
