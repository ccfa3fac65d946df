// The whole stack on loopback: Synapse, Parlour and the pages, in one throwaway folder. `make demo` and every test file
// start it here, so the demo is what the tests have tested.
import { copyFileSync, existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { startCoturn } from "./coturn.mjs";
import { startPageServer } from "./page-server.mjs";
import { startParlour } from "./parlour.mjs";
import { failureFolder, freePort, removeFolder, REPOSITORY, scratchFolder } from "./places.mjs";
import { startSynapse } from "./synapse.mjs";
import { planTurn } from "./turn-server.mjs";

const WEB_DEMO = path.join(REPOSITORY, "web-demo/dist");
const SERVER_NAME = "parlour.test"; // never resolved: everybody is told the homeserver's address

/**
 * @param {(what: string) => void} [progress] is told what takes a while.
 * @param {{address?: string, turn?: boolean}} [options]  where everything listens; `turn`: with the TURN server and TLS, on
 *   the network of stack/network.mjs.
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

  async start(progress, { address = "127.0.0.1", turn = false }) {
    if (turn) this.turn = planTurn({ folder: this.folder, address });
    // Synapse tells clients where Parlour is and Parlour asks Synapse who they are: the ports come first.
    const parlourPort = await freePort();
    const parlourUrl = this.turn?.parlour.tls ? `https://${address}:${this.turn.parlour.tls.port}` : `http://${address}:${parlourPort}`;
    const transports = [{ type: "livekit", livekit_service_url: parlourUrl }];

    progress("Starting Synapse …");
    this.synapse = await startSynapse({ folder: path.join(this.folder, "synapse"), address, port: await freePort(), serverName: SERVER_NAME, transports, turn: this.turn });
    this.parts.push(this.synapse);

    progress("Starting Parlour …");
    this.parlour = await startParlour({
      folder: path.join(this.folder, "parlour"),
      address,
      port: parlourPort,
      mediaPort: await freePort(),
      homeserver: this.synapse.url,
      serverName: SERVER_NAME,
      webRoot: existsSync(WEB_DEMO) ? WEB_DEMO : undefined,
      ...this.turn?.parlour,
    });
    this.parts.push(this.parlour);

    if (this.turn?.coturn) this.parts.push(await startCoturn(this.turn.coturn));

    progress("Bundling the pages …");
    this.pages = await startPageServer({ address, port: await freePort() });
    this.parts.push(this.pages);
  }

  /** Address of a page that shows Element Call in the room to `user`. */
  elementCallLink({ homeserver, userId, deviceId, token }, roomId, { mode = "compatibility" } = {}) {
    return `${this.pages.url}/host/#${fragment({ homeserver, userId, deviceId, token, roomId, mode })}`;
  }

  /** Address of the web demo's lobby with the room and `user` filled in; Parlour itself serves it. */
  webDemoLink({ homeserver, userId, deviceId, token }, roomId, more = {}) {
    return `${this.parlour.url}/#${fragment({ hs: homeserver, room: roomId, user: userId, token, device: deviceId, ...more })}`;
  }

  /** Keeps what helps to understand a failure, outside the tree. Returns the folder. */
  async keepEvidence(name, participants = []) {
    const folder = failureFolder(name);
    for (const file of readdirSync(this.folder, { recursive: true })) {
      if (file.endsWith(".log")) copyFileSync(path.join(this.folder, file), path.join(folder, path.basename(file)));
    }
    for (const participant of participants) await participant.keepEvidence(folder);
    return folder;
  }

  async stop() {
    for (const part of this.parts.reverse()) await part.stop();
    removeFolder(this.folder);
  }
}

/** Fields in the part of an address that browsers keep to themselves. */
function fragment(fields) {
  const plain = (value) => encodeURIComponent(value).replace(/%(3A|2F|40)/g, decodeURIComponent); // : / @ may stand as they are
  return Object.entries(fields).map(([key, value]) => `${key}=${plain(value)}`).join("&");
}
