// A person in a plain one-to-one call, as Matrix clients hold them: TURN credentials from the homeserver, one connection to
// the other person. The test carries the descriptions between the two, in the place of `m.call.*` events.
import { Participant } from "./participant.mjs";
import { chosenPairs } from "./relay.mjs";

export class OneToOne extends Participant {
  static tiles = { tile: "figure", caption: "figcaption" };

  get view() {
    return this.page.mainFrame();
  }

  async joins() {}

  /**
   * Calls `other`; resolves when both have set what the other said.
   * @param {{user: MatrixUser, policy?: "relay" | "all"}[]} sides  the caller's and the callee's; without `user` no TURN
   */
  async call(other, [ours, theirs]) {
    await Promise.all([this.prepare(ours, other.name), other.prepare(theirs, this.name)]);
    const offer = await this.page.evaluate(() => window.call.describe());
    const answer = await other.page.evaluate((offer) => window.call.describe(offer), offer);
    await this.page.evaluate((answer) => window.call.connection.setRemoteDescription(answer), answer);
  }

  prepare({ user, policy = "all" }, others) {
    const turnServer = user && { url: `${user.homeserver}/_matrix/client/v3/voip/turnServer`, token: user.token };
    return this.page.evaluate(prepareCall, { turnServer, policy, others });
  }

  /** The pair of candidates in use; see stack/relay.mjs. */
  async chosenPair() {
    await this.page.evaluate(() => (window.steeredConnections = [window.call.connection]));
    return (await this.page.evaluate(chosenPairs))[0];
  }

  hangUp() {
    return this.page.evaluate(() => window.call.hangUp());
  }
}

/** Runs in the page: camera and microphone to a new connection, and what comes to a tile with the other's name. */
async function prepareCall({ turnServer, policy, others }) {
  const iceServers = [];
  if (turnServer) {
    const response = await fetch(turnServer.url, { headers: { Authorization: `Bearer ${turnServer.token}` } });
    const { uris: urls, username, password: credential } = await response.json();
    iceServers.push({ urls, username, credential });
  }
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  const connection = new RTCPeerConnection({ iceServers, iceTransportPolicy: policy });
  for (const track of stream.getTracks()) connection.addTrack(track, stream);

  const tile = document.createElement("figure");
  const video = Object.assign(document.createElement("video"), { autoplay: true });
  tile.append(video, Object.assign(document.createElement("figcaption"), { textContent: others }));
  document.body.append(tile);
  connection.addEventListener("track", ({ streams }) => (video.srcObject = streams[0]));

  window.call = {
    connection,

    /** An offer, or the answer to one, with all candidates in it. */
    async describe(offer) {
      if (offer) await connection.setRemoteDescription(offer);
      const gathered = new Promise((resolve) => {
        connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && resolve());
      });
      await connection.setLocalDescription();
      await gathered;
      return connection.localDescription.toJSON();
    },

    hangUp() {
      connection.close();
      for (const track of stream.getTracks()) track.stop();
      tile.remove();
    },
  };
}
