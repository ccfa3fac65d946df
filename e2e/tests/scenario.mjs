// What every browser test shares: one stack and one browser per test file, callers that are closed after their call, and
// evidence when a step fails.
import { after, before, test } from "node:test";
import { startBrowser } from "../stack/browser.mjs";
import { startStack } from "../stack/stack.mjs";

export class Scenario {
  /** Starts everything before the tests of the calling file and stops it after them; `options` are startStack's. */
  static forThisFile(options) {
    const scenario = new this();
    scenario.options = options;
    before(() => scenario.skip || scenario.start());
    after(() => scenario.stop());
    return scenario;
  }

  /** Why nothing of this file can run here, or false. */
  skip = false;

  async start() {
    this.stack = await startStack(() => {}, this.options);
    this.browser = await startBrowser();
    this.participants = new Set();
    this.rooms = 0;
  }

  async stop() {
    await this.browser?.close();
    await this.stack?.stop();
  }

  /**
   * A test made of steps that build upon each other: the first that fails ends it.
   * @param {(step: (name: string, run: () => Promise<void>) => Promise<void>) => Promise<void>} run
   */
  test(name, run) {
    test(name, { skip: this.skip }, async (t) => {
      try {
        await run((stepName, runStep) => this.step(t, stepName, runStep));
      } finally {
        for (const participant of this.participants) await participant.close();
        this.participants.clear();
      }
    });
  }

  /** A step is a subtest; its failure names the folder with pictures and logs. */
  async step(t, name, run) {
    let failed = false;
    await t.test(name, async (step) => {
      try {
        await run(step);
      } catch (error) {
        failed = true;
        error.message += `\nPictures and logs: ${await this.stack.keepEvidence(name, this.participants)}`;
        throw error;
      }
    });
    if (failed) throw new Error(`the rest needs the step that failed: ${name}`);
  }

  /** New users in a new room: nothing of an earlier test is left in it. */
  async room({ encrypted = false, names }) {
    const round = (this.rooms += 1);
    const users = [];
    for (const name of names) users.push(await this.stack.synapse.register(`${name.toLowerCase()}${round}`, { displayName: name }));
    const roomId = await users[0].createRoom({ name: `Call ${round}`, encrypted, members: users.slice(1) });
    return { roomId, users };
  }

  /** Opens the page of one caller; `kind` is a class of stack/participant.mjs, and `prepare` its parameter of that name. */
  async open(kind, name, link, { browser = this.browser, prepare } = {}) {
    const participant = await kind.arrive(browser, name, prepare);
    this.participants.add(participant);
    await participant.open(link);
    return participant;
  }
}
