// Real Chromium with fake camera and microphone, driven by playwright-core. One browser serves a test file; every
// participant gets a browser context of its own, as if on a machine of its own.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import os from "node:os";
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

/** Playwright's own flags are left out: they switch features off and make this Chromium unlike the one people use. */
export function startBrowser() {
  const args = [...FLAGS, "--remote-debugging-pipe"];
  const offline = Object.values(os.networkInterfaces()).flat().every((address) => address.internal);
  if (offline) args.push(LOOPBACK_ONLY);
  return chromium.launch({ executablePath: executable(), ignoreDefaultArgs: true, args: [...args, "about:blank"] });
}
