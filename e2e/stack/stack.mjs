// The whole stack on loopback: Synapse, Parlour and the pages, in one throwaway folder. `make demo` and every test file
// start it here, so the demo is what the tests have tested.
import { copyFileSync, existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { startCoturn } from "./coturn.mjs";
import { startPageServer } from "./page-server.mjs";
import { Parlour } from "./parlour.mjs";
import { failureFolder, freePort, removeFolder, REPOSITORY, scratchFolder } from "./places.mjs";
import { startSynapse } from "./synapse.mjs";
import { planTurn } from "./turn-server.mjs";

const WEB_DEMO = path.join(REPOSITORY, "web-demo/dist");
const SERVER_NAME = "parlour.test"; // never resolved: everybody is told the homeserver's address

/**
 * @param {(what: string) => void} [progress] is told what takes a while.
 * @param {{address?: string, turn?: boolean, appservice?: boolean, parlour?: object}} [options]  where everything listens; `turn`: with the
 *   TURN server and TLS, on the network of stack/network.mjs; `appservice`: with Parlour as Synapse's application service;
 *   `parlour`: more sections of its config.
 */
export async function startStack(progress = () => {}, options = {}) {
  // Exit handlers kill the processes and remove the folder, but signals do not run them by themselves.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    if (process.listenerCount(signal) === 0) process.on(signal, () => process.exit(1));
  }
  const stack = new Stack(scratchFolder("stack"));
  try {
    await stack.start(progress, options);
  } catch (error) {
    await stack.stop();
    throw error;
  }
  return stack;
}

class Stack {
  constructor(folder) {
    this.folder = folder;
    this.parts = [];
  }

  async start(progress, { address = "127.0.0.1", turn = false, appservice = false, parlour: more }) {
    if (turn) this.turn = planTurn({ folder: this.folder, address });
    // Each is told where the other one is, so Synapse's port comes first; and Synapse reads what Parlour registers.
    const synapsePort = await freePort();
    this.parlour = new Parlour({
      folder: path.join(this.folder, "parlour"),
      address,
      port: await freePort(),
      mediaPort: await freePort(),
      homeserver: `http://${address}:${synapsePort}`,
      serverName: SERVER_NAME,
      webRoot: existsSync(WEB_DEMO) ? WEB_DEMO : undefined,
      more: { ...(appservice && { appservice: { enabled: true, proxied: true } }), ...more },
      ...this.turn?.parlour,
    });

    progress("Starting Synapse …");
    this.synapse = await startSynapse({
      folder: path.join(this.folder, "synapse"),
      address,
      port: synapsePort,
      serverName: SERVER_NAME,
      transports: [{ type: "livekit", livekit_service_url: this.parlour.publicUrl }],
      turn: this.turn,
      registration: appservice ? this.parlour.register() : undefined,
    });
    this.parts.push(this.synapse);

    progress("Starting Parlour …");
    this.parts.push(this.parlour);
    await this.parlour.start();

    if (this.turn?.coturn) this.parts.push(await startCoturn(this.turn.coturn));

    progress("Bundling the pages …");
    this.pages = await startPageServer({ address, port: await freePort() });
    this.parts.push(this.pages);
  }

  /** Address of a page that shows Element Call in the room to `user`. */
  elementCallLink(user, roomId, options) {
    return elementCallLink(this.pages.url, user, roomId, options);
  }

  /** Address of the web demo's lobby with the room and `user` filled in; Parlour itself serves it. */
  webDemoLink({ homeserver, userId, deviceId, token }, roomId, more = {}) {
    return `${this.parlour.url}/#${fragment({ hs: homeserver, room: roomId, user: userId, token, device: deviceId, ...more })}`;
  }

  keepEvidence(name, participants) {
    return keepEvidence(this.folder, name, participants);
  }

  async stop() {
    for (const part of this.parts.reverse()) await part.stop();
    removeFolder(this.folder);
  }
}

/** Keeps what helps to understand a failure, outside the tree: the logs below `run` and what the participants saw. Returns the folder. */
export async function keepEvidence(run, name, participants = []) {
  const folder = failureFolder(name);
  for (const file of readdirSync(run, { recursive: true })) {
    if (file.endsWith(".log")) copyFileSync(path.join(run, file), path.join(folder, file.replaceAll(path.sep, "-")));
  }
  for (const participant of participants) await participant.keepEvidence(folder);
  return folder;
}

/** Address of a page of `pagesUrl` that shows Element Call in the room to `user`. */
export function elementCallLink(pagesUrl, { homeserver, userId, deviceId, token }, roomId, { mode = "compatibility" } = {}) {
  return `${pagesUrl}/host/#${fragment({ homeserver, userId, deviceId, token, roomId, mode })}`;
}

/** Fields in the part of an address that browsers keep to themselves. */
function fragment(fields) {
  const plain = (value) => encodeURIComponent(value).replace(/%(3A|2F|40)/g, decodeURIComponent); // : / @ may stand as they are
  return Object.entries(fields).map(([key, value]) => `${key}=${plain(value)}`).join("&");
}
