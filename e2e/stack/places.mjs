// Where things lie on this machine: the repository, the cache that outlives a run, the throwaway folder of one run,
// and free ports on loopback. Used by every other file of the stack.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import dgram from "node:dgram";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
export const E2E = path.join(REPOSITORY, "e2e");

/** Survives runs, lies outside the tree: the Python environment with Synapse. `e2e/setup.sh` fills it. */
export const CACHE = path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache"), "parlour");

/** Screenshots and logs of failed tests, kept for the person who looks into them. */
export const FAILURES = path.join(os.tmpdir(), "parlour-e2e-failures");

/** A new folder for one run; gone when this process ends. */
export function scratchFolder(name) {
  const folder = mkdtempSync(path.join(os.tmpdir(), `parlour-${name}-`));
  process.on("exit", () => removeFolder(folder));
  return folder;
}

/** Patient, as a process that was killed a moment ago may still write into it. */
export function removeFolder(folder) {
  rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
}

export function failureFolder(name) {
  const folder = path.join(FAILURES, `${new Date().toISOString().replace(/[:.]/g, "-")}-${name.replace(/[^\w-]+/g, "-").slice(0, 80)}`);
  mkdirSync(folder, { recursive: true });
  return folder;
}

// The kernel hands out ephemeral ports in random order, so two calls seldom meet; remember them all the same.
const handedOut = new Set();

/** A loopback port that is free for TCP and for UDP: Parlour's media listens on both under one number. */
export async function freePort() {
  for (;;) {
    const tcp = net.createServer();
    await new Promise((resolve, reject) => tcp.once("error", reject).listen(0, "127.0.0.1", resolve));
    const { port } = tcp.address();
    const udp = dgram.createSocket("udp4");
    const free = await new Promise((resolve) => {
      udp.once("error", () => resolve(false));
      udp.bind(port, "127.0.0.1", () => resolve(true));
    });
    await new Promise((resolve) => udp.close(resolve)).catch(() => {});
    await new Promise((resolve) => tcp.close(resolve));
    if (free && !handedOut.has(port)) {
      handedOut.add(port);
      return port;
    }
  }
}
