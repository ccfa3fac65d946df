// Real Chromium with fake camera and microphone, driven by playwright-core. One browser serves a test file; every
// participant gets a browser context of its own, as if on a machine of its own.
import { execFileSync } from "node:child_process";
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
  "--use-fake-device-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
];

/** Chromium by any name it is packaged under; `CHROMIUM` overrides. */
function executable() {
  const names = process.env.CHROMIUM ? [process.env.CHROMIUM] : ["chromium", "chromium-browser", "google-chrome"];
  for (const name of names) {
    try {
      return execFileSync("which", [name], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    } catch {
      // the next name
    }
  }
  throw new Error("Chromium is missing. `make test` installs it; or name one in CHROMIUM.");
}

/**
 * Playwright's own flags are left out: some (mDNS, throttling, features switched off) would make this Chromium unlike
 * the one people use.
 */
export function startBrowser() {
  return chromium.launch({ executablePath: executable(), ignoreDefaultArgs: true, args: [...FLAGS, "--remote-debugging-pipe", "about:blank"] });
}
