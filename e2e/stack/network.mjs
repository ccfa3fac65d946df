// Machines on a private network, as network namespaces: this process is the server's machine and holds the bridge that
// joins all; the others hang on it by veth pairs. Needs own-network.mjs, which test files import first.
//
//   server 10.77.0.1, fd77::1 ── bridge ──┬── client 10.77.0.2, fd77::2
//                                         ├── peer   10.77.0.3, fd77::3
//                                         └── NAT    10.77.0.4 ── 10.88.4.2  a machine behind it
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startNameServer } from "./name-server.mjs";
import { scratchFolder } from "./places.mjs";
import { Service } from "./service.mjs";

/** The server's addresses; the bridge has them. */
export const SERVER = { ipv4: "10.77.0.1", ipv6: "fd77::1" };

/** All machines are in these, those behind a NAT apart: what a TURN server has to be allowed to relay to. */
export const NETWORKS = ["10.77.0.0/24", "fd77::/64"];

const BRIDGE = "bridge";

function ip(...words) {
  execFileSync("ip", words.join(" ").split(" "), { stdio: ["ignore", "pipe", "inherit"] });
}

/** Makes this process's namespace the server's machine. Call once. */
export function startNetwork() {
  ip("link set lo up");
  ip("link add", BRIDGE, "type bridge");
  ip("addr add", `${SERVER.ipv4}/24`, "dev", BRIDGE);
  ip("addr add", `${SERVER.ipv6}/64`, "dev", BRIDGE, "nodad");
  ip("link set", BRIDGE, "up");
  return new Network();
}

class Network {
  constructor() {
    this.machines = [];
    this.used = 1; // addresses; the first is the server's
  }

  /** One more address of the server's machine, for a server that needs a well-known port to itself. */
  serverAddress() {
    const address = `10.77.0.${(this.used += 1)}`;
    ip("addr add", `${address}/24`, "dev", BRIDGE);
    return address;
  }

  /**
   * From now on these names, and no others, have addresses: for all that this process starts, on every machine.
   * @param {Record<string, string>} hosts  name → address
   * @param {Record<string, {target: string, port: number}>} [services]  SRV records
   */
  async resolve(hosts, services) {
    const file = path.join(scratchFolder("names"), "resolv.conf");
    writeFileSync(file, `nameserver ${SERVER.ipv4}\n`);
    execFileSync("mount", ["--bind", file, "/etc/resolv.conf"], { stdio: ["ignore", "pipe", "inherit"] });
    this.nameServer = await startNameServer({ address: SERVER.ipv4, hosts, services });
  }

  /** A new machine on the bridge. */
  async machine(name) {
    const number = (this.used += 1);
    const machine = await Machine.boot(name, { ipv4: `10.77.0.${number}`, ipv6: `fd77::${number}` });
    this.machines.push(machine);
    machine.port = `port${number}`;
    ip("link add", machine.port, "type veth peer name eth0 netns", machine.pid);
    ip("link set", machine.port, "master", BRIDGE, "up");
    machine.ip("link set eth0 up");
    machine.takeAddresses();
    return machine;
  }

  /** Moves a machine to other addresses, as a phone that goes from one network to another: the old ones are gone. */
  move(machine) {
    const number = (this.used += 1);
    Object.assign(machine, { ipv4: `10.77.0.${number}`, ipv6: `fd77::${number}` });
    machine.ip("addr flush dev eth0 scope global");
    machine.takeAddresses();
  }

  /**
   * A machine behind a symmetric NAT: each of its sockets has another public port, chosen at random, for every address and
   * port that it sends to, and hears of nobody else. IPv4 only.
   */
  async machineBehindNat(name) {
    const nat = await this.machine(`NAT of ${name}`);
    const net = `10.88.${this.used}`;
    const machine = await Machine.boot(name, { ipv4: `${net}.2` });
    this.machines.push(machine);
    machine.port = nat.port;
    nat.ip("link add eth1 type veth peer name eth0 netns", machine.pid);
    nat.ip("addr add", `${net}.1/24`, "dev eth1");
    nat.ip("link set eth1 up");
    machine.ip("addr add", `${machine.ipv4}/24`, "dev eth0");
    machine.ip("link set eth0 up");
    machine.ip("route add default via", `${net}.1`);
    nat.run("sysctl", "--quiet", "net.ipv4.ip_forward=1");
    nat.nft(`table ip nat {
      chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade random,fully-random; }
      chain in { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname "eth1" accept; }
    }`);
    return machine;
  }

  async stop() {
    await this.nameServer?.stop();
    for (const machine of this.machines) await machine.stop();
    ip("link del", BRIDGE);
  }
}

class Machine {
  /** A namespace lives as long as a process in it. This one reads from us, so it ends with us, however we end. */
  static async boot(name, addresses) {
    const holder = spawn("unshare", ["--net", "sh", "-c", "echo; exec cat"], { stdio: ["pipe", "pipe", "inherit"] });
    await new Promise((resolve, reject) => {
      holder.once("error", reject);
      holder.once("exit", (code) => reject(new Error(`unshare ended with status ${code}`)));
      holder.stdout.once("data", resolve);
    });
    for (const handle of [holder, holder.stdin, holder.stdout]) handle.unref(); // a test that failed shall end
    return new Machine(name, holder, addresses);
  }

  constructor(name, holder, { ipv4, ipv6 }) {
    Object.assign(this, { name, holder, ipv4, ipv6 });
    this.services = [];
    this.ip("link set lo up");
  }

  get pid() {
    return this.holder.pid;
  }

  /** The words of a command that runs `words` on this machine. */
  inside(...words) {
    return ["nsenter", `--net=/proc/${this.pid}/ns/net`, "--", ...words.map(String)];
  }

  /** Runs a command to its end and returns what it printed. */
  run(...words) {
    const [command, ...args] = this.inside(...words);
    return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  }

  ip(...words) {
    this.run("ip", ...words.join(" ").split(" "));
  }

  takeAddresses() {
    this.ip("addr add", `${this.ipv4}/24`, "dev eth0");
    this.ip("addr add", `${this.ipv6}/64`, "dev eth0 nodad");
    // Nobody answers beyond, but a browser takes a machine without a default route for one without a network.
    this.ip("route add default via", SERVER.ipv4);
  }

  nft(rules) {
    const [command, ...args] = this.inside("nft", "--file", "-");
    execFileSync(command, args, { input: rules });
  }

  /** Runs a program on this machine until the machine stops. */
  start(name, command, args, options) {
    const [enter, ...words] = this.inside(command, ...args);
    const service = new Service(name, enter, words, options);
    this.services.push(service);
    return service;
  }

  /** Makes `file` a program that runs `command` on this machine; for who starts programs by a path, like playwright. */
  wrapper(file, command) {
    writeFileSync(file, `#!/bin/sh\nexec ${this.inside(command).join(" ")} "$@"\n`);
    chmodSync(file, 0o755);
    return path.resolve(file);
  }

  /**
   * From now on a firewall drops those packets of this machine that match one of `matches`, in the words of nftables
   * (`meta l4proto udp`), and no others.
   */
  block(...matches) {
    const table = `firewall_${this.port}`;
    const rules = matches.map((match) => `${match} drop;`).join(" ");
    const chain = `chain in { type filter hook ingress device "${this.port}" priority 0; ${rules} };`;
    execFileSync("nft", ["--file", "-"], { input: `table netdev ${table}\ndelete table netdev ${table}\ntable netdev ${table} { ${chain} }` });
  }

  async stop() {
    for (const service of this.services) await service.stop();
    this.holder.removeAllListeners("exit");
    this.holder.ref();
    const ended = new Promise((resolve) => this.holder.once("exit", resolve));
    this.holder.stdin.end();
    await ended;
  }
}
