// Servers of several names that know of each other only what the Internet would tell them: each with a Synapse and, if it has
// one, a Parlour behind a web server with a certificate, on the network of stack/network.mjs. Their names resolve there and nowhere else.
//
//   east.test      Synapse
//   rtc.east.test  Parlour
//   west.test …
//   pages.test     the pages that browsers open
import { mkdirSync } from "node:fs";
import path from "node:path";
import { makeCertificate } from "./certificate.mjs";
import { FEDERATION_PORT, HTTPS_PORT, startFront } from "./front.mjs";
import { NETWORKS, SERVER } from "./network.mjs";
import { startPageServer } from "./page-server.mjs";
import { Parlour } from "./parlour.mjs";
import { removeFolder, scratchFolder } from "./places.mjs";
import { elementCallLink, keepEvidence } from "./stack.mjs";
import { startSynapse } from "./synapse.mjs";

const PORT = { synapse: 8008, parlour: 8080, media: 3478, pages: 8000 };
const PAGES = "pages.test";

/**
 * @param {Network} network
 * @param {Record<string, {guestOf?: string, guests?: string[], bySrv?: boolean}>} plans  name → what is there: Synapse and a Parlour, or
 *   only Synapse, whose users are guests on the Parlour of `guestOf`, which has it among its `guests`; `bySrv`: other servers
 *   find it by an SRV record, not by a well-known document.
 */
export async function startFederation(network, plans) {
  const federation = new Federation(network, scratchFolder("federation"));
  try {
    await federation.start(plans);
  } catch (error) {
    await federation.stop();
    throw error;
  }
  return federation;
}

class Federation {
  constructor(network, folder) {
    Object.assign(this, { network, folder });
    this.parts = [];
    /** Name → Server. */
    this.servers = {};
  }

  async start(plans) {
    const names = Object.keys(plans);
    const addresses = new Map(names.map((name) => [name, this.network.serverAddress()]));
    const hosts = names.flatMap((name) => [[name, addresses.get(name)], [`rtc.${name}`, addresses.get(name)]]);
    const services = names.filter((name) => plans[name].bySrv).map((name) => [`_matrix-fed._tcp.${name}`, { target: name, port: FEDERATION_PORT }]);
    await this.network.resolve(Object.fromEntries([...hosts, [PAGES, SERVER.ipv4]]), Object.fromEntries(services));
    this.tls = makeCertificate({ folder: path.join(this.folder, "tls"), names: [...hosts.map(([name]) => name), PAGES] });

    await Promise.all(names.map((name) => this.startServer(name, addresses.get(name), plans[name])));
    const pages = await startPageServer({ port: PORT.pages });
    this.parts.push(pages, await startFront({ address: SERVER.ipv4, tls: this.tls, backends: { [PAGES]: () => pages.url } }));
    this.pages = { url: `https://${PAGES}` };
  }

  async startServer(name, address, { guestOf, guests = [], bySrv = false }) {
    const server = (this.servers[name] = { name });
    const folder = path.join(this.folder, name);
    mkdirSync(folder);
    if (!guestOf) {
      server.parlour = new Parlour({
        folder: path.join(folder, "parlour"),
        address,
        port: PORT.parlour,
        mediaPort: PORT.media,
        homeserver: `http://${address}:${PORT.synapse}`,
        serverName: name,
        publicUrl: `https://rtc.${name}`,
        more: {
          appservice: { enabled: true, proxied: true },
          access: { local_servers: [name, ...guests] },
          federation: { allow_private: NETWORKS, extra_ca_file: this.tls.authority },
        },
      });
    }
    server.synapse = await startSynapse({
      folder: path.join(folder, "synapse"),
      address,
      port: PORT.synapse,
      serverName: name,
      publicUrl: `https://${name}`,
      transports: [{ type: "livekit", url: `wss://rtc.${guestOf ?? name}`, livekit_service_url: `https://rtc.${guestOf ?? name}` }],
      registration: server.parlour?.register(),
      authority: this.tls.authority,
    });
    this.parts.push(server.synapse);
    if (server.parlour) {
      this.parts.push(server.parlour);
      await server.parlour.start();
    }
    const ofSynapse = (url) => {
      if (url.startsWith("/.well-known/matrix/server") && bySrv) return undefined;
      return server.synapse.url;
    };
    const backends = { [name]: ofSynapse, [`rtc.${name}`]: () => server.parlour?.url };
    for (const port of bySrv ? [HTTPS_PORT, FEDERATION_PORT] : [HTTPS_PORT]) this.parts.push(await startFront({ address, port, tls: this.tls, backends }));
  }

  /** A new user of the server `name`. */
  register(name, localpart, options) {
    return this.servers[name].synapse.register(localpart, options);
  }

  /** Address of a page that shows Element Call in the room to `user`. */
  elementCallLink(user, roomId, options) {
    const server = this.servers[user.userId.split(":")[1]];
    return elementCallLink(this.pages.url, { ...user, homeserver: server.synapse.publicUrl }, roomId, options);
  }

  keepEvidence(name, participants) {
    return keepEvidence(this.folder, name, participants);
  }

  async stop() {
    for (const part of this.parts.reverse()) await part.stop();
    removeFolder(this.folder);
  }
}
