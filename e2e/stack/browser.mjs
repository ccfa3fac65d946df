// Real Chromium with fake camera and microphone, driven by playwright-core. One browser serves a test file; every
// participant gets a browser context of its own, as if on a machine of its own.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-ui-for-media-stream",
  // Ten frames a second instead of twenty: two cores encode and decode without hardware for every participant at once.
  "--use-fake-device-for-media-stream=fps=10",
  "--autoplay-policy=no-user-gesture-required",
];

/** On a machine without a network Chromium would offer no ICE candidate at all; elsewhere it leaves loopback out, as for people. */
const LOOPBACK_ONLY = "--allow-loopback-in-peer-connection";

/** Chromium as Debian packages it, or the one that e2e/setup.sh downloads elsewhere; `CHROMIUM` overrides. */
function executable() {
  const names = process.env.CHROMIUM ? [process.env.CHROMIUM] : ["chromium", "google-chrome"];
  for (const name of names) {
    const { status, stdout } = spawnSync("which", [name], { encoding: "utf8" });
    if (status === 0) return stdout.trim();
  }
  if (existsSync(chromium.executablePath())) return chromium.executablePath();
  throw new Error("Chromium is missing. `make test` installs it; or name one in CHROMIUM.");
}

/**
 * Playwright's own flags are left out: they switch features off and make this Chromium unlike the one people use.
 * @param {{machine?: Machine, home?: string, secureOrigins?: string[]}} [options]
 *   `machine` of stack/network.mjs it runs on; `home` with a profile and the authorities it trusts (stack/certificate.mjs);
 *   `secureOrigins` may use camera and cryptography though they are neither HTTPS nor on loopback.
 */
export function startBrowser({ machine, home, secureOrigins = [] } = {}) {
  const args = [...FLAGS, "--remote-debugging-pipe"];
  const offline = Object.values(os.networkInterfaces()).flat().every((address) => address.internal);
  if (offline) args.push(LOOPBACK_ONLY);
  if (home) args.push(`--user-data-dir=${path.join(home, "profile")}`);
  if (secureOrigins.length > 0) args.push(`--unsafely-treat-insecure-origin-as-secure=${secureOrigins.join()}`);
  return chromium.launch({
    executablePath: machine ? machine.wrapper(path.join(home, "chromium"), executable()) : executable(),
    env: home ? { ...process.env, HOME: home } : process.env,
    ignoreDefaultArgs: true,
    args: [...args, "about:blank"],
  });
}

/** Ends a browser as a crash or an empty battery does: none of its pages says farewell. */
export async function killBrowser(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const gone = new Promise((resolve) => browser.once("disconnected", resolve));
  process.kill(processInfo.find(({ type }) => type === "browser").id, "SIGKILL");
  await gone;
}
