// One process of the stack: started with its output in a log file, waited for until it answers, stopped by its id.
// Synapse, Parlour and the native client are services.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** Synapse closes its database on SIGTERM; ten seconds is far beyond what it needs on a busy machine. */
const STOP_TIMEOUT_MS = 10_000;

const running = new Set();
// The last resort when this process ends without having stopped it: nothing may be left behind.
process.on("exit", () => {
  for (const service of running) service.child.kill("SIGKILL");
});

export class Service {
  constructor(name, command, args, { log, cwd, env, detached = false }) {
    this.name = name;
    this.log = log;
    const output = openSync(log, "a");
    this.child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", output, output], detached });
    closeSync(output);
    this.ended = new Promise((resolve) => {
      this.child.once("error", (error) => resolve(`could not be started: ${error.message}`));
      this.child.once("exit", (code, signal) => resolve(`ended with ${signal ?? `status ${code}`}`));
    });
    this.ended.then((how) => {
      this.how = how;
      running.delete(this);
    });
    running.add(this);
  }

  get pid() {
    return this.child.pid;
  }

  output() {
    return readFileSync(this.log, "utf8");
  }

  lastLines(count) {
    return this.output().trimEnd().split("\n").slice(-count).join("\n");
  }

  /** Resolves when `url` answers 2xx. Fails with the last lines of the log when the process ends or takes too long. */
  async answers(url, timeoutMs) {
    const deadline = Date.now() + timeoutMs;
    while (!this.how && Date.now() < deadline) {
      const response = await fetch(url, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
      if (response?.ok) return;
      await sleep(100);
    }
    throw new Error(`${this.name} ${this.how ?? `did not answer ${url} within ${timeoutMs / 1000} s`}; its last words:\n${this.lastLines(20)}`);
  }

  /** Resident memory in KiB, as the kernel counts it. */
  residentKiB() {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))[1]);
  }

  async stop() {
    if (this.how) return;
    this.child.kill("SIGTERM");
    const patience = setTimeout(() => this.child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(patience);
  }
}
