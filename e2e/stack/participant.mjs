// A person in a call: one browser context showing Element Call or the web demo. Acts through the page's own buttons and
// perceives through stack/senses.mjs.
import { writeFileSync } from "node:fs";
import path from "node:path";
import { listen, watchVideos } from "./senses.mjs";
import { PATIENCE, until } from "./until.mjs";

/** Below 600 points of height Element Call hides its buttons. */
const VIEWPORT = { width: 960, height: 640 };

/** Two looks at a fake camera's 10 frames a second differ for certain after this. */
const WATCH_MS = 500;
/** The fake microphone beeps every 500 ms. */
const LISTEN_MS = 1_200;
/** Root mean square: a beep is above 0.05, comfort noise of a silent microphone below 0.001. */
const AUDIBLE = 0.01;

/** Loading the application on two cores that encode and decode video for the others at the same time. */
const LOAD_TIMEOUT_MS = 40_000;

export class Participant {
  /**
   * A fresh browser profile for one person. `prepare` is called with its context before any page.
   * @param {import("playwright-core").Browser} browser
   */
  static async arrive(browser, name, prepare = () => {}) {
    const context = await browser.newContext({ viewport: VIEWPORT });
    await prepare(context);
    return new this(name, context, await context.newPage());
  }

  constructor(name, context, page) {
    Object.assign(this, { name, context, page });
    this.console = [];
    page.on("console", (message) => this.console.push(`${new Date().toISOString()} ${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => this.console.push(`${new Date().toISOString()} uncaught: ${error.stack ?? error}`));
  }

  /** Opens `link` and resolves when the page says that it has joined. */
  async open(link) {
    await this.page.goto(link);
    await this.joins();
  }

  /** Videos with their captions, as seen during a short look. The web demo marks one's own with "(you)". */
  async videos() {
    const videos = await this.view.evaluate(watchVideos, { ...this.constructor.tiles, watchMs: WATCH_MS });
    return videos.map((video) => ({ ...video, name: video.name.replace(" (you)", "") }));
  }

  /** Resolves with the milliseconds until exactly `names` are on the screen, each once, each moving. */
  sees(names, timeoutMs) {
    const wanted = [...names].sort().join();
    return until(`${this.name} sees ${wanted} moving`, timeoutMs, () => this.videos(), (videos) => {
      return videos.every((video) => video.moving) && videos.map((video) => video.name).sort().join() === wanted;
    });
  }

  /** Resolves with the milliseconds until `count` others are heard at once, and no more than these. */
  hears(count, timeoutMs) {
    return until(`${this.name} hears ${count} others`, timeoutMs, () => this.view.evaluate(listen, { listenMs: LISTEN_MS }), (loudness) => {
      return loudness.length === count && loudness.every((level) => level > AUDIBLE);
    });
  }

  /** Resolves with the milliseconds until no tile, with or without a picture, has the caption `name`. */
  loses(name, timeoutMs) {
    const { tile, caption } = this.constructor.tiles;
    const captions = this.view.locator(tile).locator(caption);
    return until(`${name} is gone for ${this.name}`, timeoutMs, () => captions.allTextContents(), (names) => !names.includes(name));
  }

  close() {
    return this.context.close();
  }

  async keepEvidence(folder) {
    await this.page.screenshot({ path: path.join(folder, `${this.name}.png`) }).catch(() => {});
    writeFileSync(path.join(folder, `${this.name}-console.log`), this.console.join("\n"));
  }
}

export class ElementCall extends Participant {
  static tiles = { tile: "[data-testid=videoTile]", caption: "[data-testid=name_tag]" };

  /** Element Call runs in the host page's only frame. */
  get view() {
    return this.page.mainFrame().childFrames()[0];
  }

  button(id) {
    return this.page.frameLocator("iframe").getByTestId(id);
  }

  /** Resolves when Element Call says that it has joined; what people call "I pressed join" is this moment. */
  async joins() {
    await this.page.waitForFunction(() => window.host?.joined || window.host?.error, null, { timeout: LOAD_TIMEOUT_MS * PATIENCE });
    const error = await this.page.evaluate(() => window.host.error);
    if (error) throw new Error(`${this.name}: ${error}`);
  }

  async leave() {
    await this.button("incall_leave").click();
  }

  async shareScreen() {
    await this.button("incall_screenshare").click();
  }

  async reload() {
    await this.page.reload();
    await this.joins();
  }

  /** What went between Element Call and its host; see host/host.js. */
  hostLog() {
    return this.page.evaluate(() => window.host.log);
  }

  async keepEvidence(folder) {
    await super.keepEvidence(folder);
    writeFileSync(path.join(folder, `${this.name}-host.log`), (await this.hostLog().catch(() => [])).join("\n"));
  }
}

/** A page that only knows LiveKit: joins with a token, shows what it receives. */
export class Peer extends Participant {
  static tiles = { tile: "figure", caption: "figcaption" };

  get view() {
    return this.page.mainFrame();
  }

  async joins() {
    await this.page.waitForFunction(() => window.peer, null, { timeout: LOAD_TIMEOUT_MS * PATIENCE });
  }

  join(way, publish) {
    return this.page.evaluate(([way, publish]) => window.peer.join(way, publish), [way, publish]);
  }
}

export class WebDemo extends Participant {
  static tiles = { tile: ".tile", caption: ".name" };

  get view() {
    return this.page.mainFrame();
  }

  /** Passes the lobby, unless the link skips it, and waits until the demo is connected. */
  async joins() {
    const screen = () => this.page.evaluate(() => window.parlour?.state);
    await until(`${this.name} can join`, LOAD_TIMEOUT_MS, screen, (state) => ["lobby", "call", "ended"].includes(state?.screen));
    if ((await screen()).screen === "lobby") await this.page.getByRole("button", { name: "Join the call" }).click();
    await until(`${this.name} is connected`, LOAD_TIMEOUT_MS, screen, (state) => {
      if (state.trouble) throw new Error(`${this.name}: ${state.trouble}`);
      return state.connected;
    });
  }

  async leave() {
    await this.page.getByRole("button", { name: /Leave/ }).click();
  }

  async shareScreen() {
    await this.page.getByRole("button", { name: /screen/i }).click();
  }
}
