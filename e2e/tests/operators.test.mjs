// docs/operators.md as an operator follows it: beside a stock Synapse, with the files of the guide as they are written there, calls
// work and Parlour finds nothing to complain about. Names resolve only here, so it may be `example.org`.
import { unavailable } from "../stack/own-network.mjs";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startBrowser } from "../stack/browser.mjs";
import { homeThatTrusts, makeCertificate } from "../stack/certificate.mjs";
import { startFront } from "../stack/front.mjs";
import { SERVER, startNetwork } from "../stack/network.mjs";
import { startPageServer } from "../stack/page-server.mjs";
import { BINARY } from "../stack/parlour.mjs";
import { ElementCall } from "../stack/participant.mjs";
import { REPOSITORY, scratchFolder } from "../stack/places.mjs";
import { python } from "../stack/python.mjs";
import { Service } from "../stack/service.mjs";
import { elementCallLink, keepEvidence } from "../stack/stack.mjs";
import { registerUser } from "../stack/synapse.mjs";
import { requestThroughHomeserver } from "../stack/token-service.mjs";
import { Scenario } from "./scenario.mjs";

const GUIDE = readFileSync(path.join(REPOSITORY, "docs/operators.md"), "utf8");
const SYNAPSE = "http://127.0.0.1:8008";
const PARLOUR = "http://127.0.0.1:8080";
const PAGES = "pages.test";
const START_TIMEOUT_MS = 90_000;
const SEEN_WITHIN_MS = 10_000;

/** What the guide has for the file `name`: a fenced block below a line with the name alone. */
function fileOf(name) {
  const [, content] = GUIDE.match(new RegExp(`\\n\`${name}\`\\n\\n\`\`\`\\w+\\n([^]*?)\`\`\`\\n`)) ?? [];
  return content ?? assert.fail(`the guide has no ${name}`);
}

/** What the guide's web server answers to `path` at its name, byte by byte. */
function answerOf(path) {
  const [, content] = fileOf("/etc/caddy/Caddyfile").match(new RegExp(`respond ${path} \`(.*)\``)) ?? [];
  return content ?? assert.fail(`the guide's web server has no ${path}`);
}

/** One machine with all that the guide sets up, in folders below a throwaway one. */
class Machine extends Scenario {
  skip = unavailable;

  async start() {
    this.participants = new Set();
    this.parts = [];
    this.folder = scratchFolder("operators");
    this.stack = { keepEvidence: (name, participants) => keepEvidence(this.folder, name, participants) };
    this.network = startNetwork();
    const names = ["example.org", "matrix.example.org", "rtc.example.org", PAGES];
    await this.network.resolve(Object.fromEntries(names.map((name) => [name, SERVER.ipv4])));
    this.tls = makeCertificate({ folder: path.join(this.folder, "tls"), names });
  }

  /** The machine's `file`. */
  at(file) {
    return path.join(this.folder, file);
  }

  /** Writes a file of the guide, in which paths are those of this machine. */
  paste(file) {
    mkdirSync(path.dirname(this.at(file)), { recursive: true });
    writeFileSync(this.at(file), fileOf(file).replaceAll(" /etc/", ` ${this.at("/etc/")}`));
    return this.at(file);
  }

  get environment() {
    return { PARLOUR_DATA_DIR: this.at("/var/lib/parlour"), NO_COLOR: "1" };
  }

  /** Runs a command of the guide. */
  parlour(...args) {
    assert.ok(GUIDE.includes(["parlour", ...args].join(" ")), args.join(" "));
    const words = args.map((word) => (word.startsWith("/etc/") ? this.at(word) : word));
    return execFileSync(BINARY, words, { encoding: "utf8", env: { ...process.env, ...this.environment }, stdio: ["ignore", "pipe", "pipe"] });
  }

  async serve(name, command, args, url) {
    const service = new Service(name, command, args, { log: this.at(`${name}.log`), cwd: this.folder, env: this.environment });
    this.parts.push(service);
    await service.answers(url, START_TIMEOUT_MS);
    return service;
  }

  async stop() {
    await this.browser?.close();
    for (const part of this.parts?.reverse() ?? []) await part.stop();
    await this.network?.stop();
  }
}

const machine = Machine.forThisFile();

machine.test("the guide leads from a stock Synapse to calls", async (step) => {
  const users = [];
  let secret, parlour;

  await step("there is a Synapse as it comes", async () => {
    const config = machine.at("/etc/matrix-synapse/homeserver.yaml");
    mkdirSync(path.dirname(config), { recursive: true });
    const words = ["--server-name", "example.org", "--report-stats", "no", "--config-path", config, "--generate-config"];
    execFileSync(await python(), ["-m", "synapse.app.homeserver", ...words, "--data-directory", machine.folder], { cwd: machine.folder, stdio: "pipe" });
    [, secret] = readFileSync(config, "utf8").match(/^registration_shared_secret: "(.*)"$/m);
  });

  await step("Parlour finds its configuration fine, and registers", () => {
    const config = machine.paste("/etc/parlour/parlour.toml");
    assert.match(execFileSync(BINARY, ["check", "--config", config], { encoding: "utf8" }), /is fine/);
    machine.parlour("registration", "--config", "/etc/parlour/parlour.toml", "--output", "/etc/matrix-synapse/parlour.yaml");
  });

  await step("both start, and Parlour misses nothing", async () => {
    machine.paste("/etc/matrix-synapse/conf.d/calls.yaml");
    const configs = ["homeserver.yaml", "conf.d/"].flatMap((file) => ["--config-path", machine.at(`/etc/matrix-synapse/${file}`)]);
    await machine.serve("Synapse", await python(), ["-m", "synapse.app.homeserver", ...configs], `${SYNAPSE}/_matrix/client/versions`);
    parlour = await machine.serve("Parlour", BINARY, ["serve", "--config", machine.at("/etc/parlour/parlour.toml")], `${PARLOUR}/healthz`);
  });

  await step("clients find the calls by both ways, as Parlour itself says", async () => {
    users.push(await registerUser({ url: SYNAPSE, secret }, "alice"), await registerUser({ url: SYNAPSE, secret }, "bob"));
    const { rtc_transports: transports } = await users[0].request("GET", "/rtc/transports", undefined, "unstable/org.matrix.msc4143");
    const document = JSON.parse(answerOf("/.well-known/matrix/client"));
    assert.deepEqual(document["org.matrix.msc4143.rtc_foci"], transports);
    const ours = await (await fetch(`${PARLOUR}/.well-known/matrix/client`)).json();
    assert.deepEqual(ours["org.matrix.msc4143.rtc_foci"], transports);
    assert.deepEqual(JSON.parse(answerOf("/.well-known/matrix/server")), { "m.server": "matrix.example.org:443" });
  });

  await step("two people call each other", async () => {
    const [alice, bob] = users;
    const pages = await startPageServer({ port: 8000 });
    const backends = { "rtc.example.org": () => PARLOUR, "matrix.example.org": () => SYNAPSE, [PAGES]: () => pages.url };
    machine.parts.push(pages, await startFront({ address: SERVER.ipv4, tls: machine.tls, backends }));
    const home = homeThatTrusts({ folder: scratchFolder("home"), authority: machine.tls.authority });
    machine.browser = await startBrowser({ machine: await machine.network.machine("people"), home });

    const roomId = await alice.createRoom({ name: "Call", encrypted: true, members: [bob] });
    const link = (user) => elementCallLink(`https://${PAGES}`, { ...user, homeserver: "https://matrix.example.org" }, roomId);
    const callers = [];
    for (const user of users) callers.push(await machine.open(ElementCall, user.displayName, link(user)));
    await Promise.all(callers.map((caller) => caller.sees(["Alice", "Bob"], SEEN_WITHIN_MS)));
    for (const caller of callers) await caller.hears(1, SEEN_WITHIN_MS);
    assert.ok(callers[0].console.some((line) => line.includes("homeserver supports delegation")));

    const { status, body } = await requestThroughHomeserver(alice, { room: roomId, member: "M", url: "wss://rtc.example.org" });
    assert.equal(status, 200, JSON.stringify(body));
    assert.match(execFileSync(BINARY, ["calls", "list", "--config", machine.at("/etc/parlour/parlour.toml")], { encoding: "utf8", env: { ...process.env, ...machine.environment } }), /@bob:example\.org/);
  });

  await step("Parlour had nothing to complain about", () => {
    const complaints = parlour.output().split("\n").filter((line) => /\b(WARN|ERROR)\b/.test(line));
    assert.deepEqual(complaints, []);
  });
});
