// A bare page with livekit-client, without Matrix: the browser side of the native client's test, and the measure of how
// long a join takes. Tests call `window.peer`.
import { DisconnectReason, Room, RoomEvent, Track } from "livekit-client";

/** Notes when the signalling socket opens and when ICE connects; both are hidden inside livekit-client. */
const marks = { socketOpen: 0, iceConnected: 0, firstFrame: 0 };

window.WebSocket = class extends WebSocket {
  constructor(...parameters) {
    super(...parameters);
    this.addEventListener("open", () => (marks.socketOpen = performance.now()));
  }
};

const connections = [];

window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...parameters) {
    super(...parameters);
    connections.push(this);
    this.addEventListener("iceconnectionstatechange", () => {
      if (this.iceConnectionState === "connected") marks.iceConnected ||= performance.now();
    });
  }
};

const rooms = [];

/** Of each room of this page that has ended: why, by the name that livekit-client has for it. */
const ends = [];

let reconnects = 0;

/** livekit-client's names of layers, the lowest first. */
const RIDS = ["q", "h", "f"];

function show(track, participant) {
  const element = track.attach();
  const tile = document.createElement("figure");
  tile.append(element, Object.assign(document.createElement("figcaption"), { textContent: participant.identity }));
  document.body.append(tile);
  if (track.kind === Track.Kind.Video) element.requestVideoFrameCallback(() => (marks.firstFrame ||= performance.now()));
  track.once("ended", () => tile.remove());
}

/** The codec that the description of what a receiver gets names first: statistics know nothing of redundancy. */
function firstCodec(receiver) {
  for (const connection of connections) {
    const mid = connection.getTransceivers().find((transceiver) => transceiver.receiver === receiver)?.mid;
    const section = connection.remoteDescription?.sdp.split("\r\nm=").find((text) => text.includes(`a=mid:${mid}\r\n`));
    const pt = section?.match(/^\w+ \d+ \S+ (\d+)/)?.[1];
    if (pt) return section.match(new RegExp(`a=rtpmap:${pt} ([^/]+)`))?.[1];
  }
}

window.peer = {
  marks,

  /**
   * Connects and publishes what is asked for. Videos are shown in `figure`s captioned with the identity.
   * `publishDefaults` are livekit-client's, e.g. `{ videoCodec: "vp9" }`. Without `turn` there is no way but the direct one.
   */
  async join({ url, jwt }, { camera = false, microphone = false, adaptiveStream = true, singlePeerConnection = true, turn = true, publishDefaults } = {}) {
    const room = new Room({ adaptiveStream, dynacast: true, singlePeerConnection, publishDefaults });
    rooms.push(room);
    room.on(RoomEvent.TrackSubscribed, (track, _publication, participant) => show(track, participant));
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      for (const element of track.detach()) element.closest("figure").remove();
    });
    room.on(RoomEvent.Disconnected, (reason) => ends.push(DisconnectReason[reason]));
    room.on(RoomEvent.Reconnected, () => (reconnects += 1));
    await room.connect(url, jwt, turn ? {} : { rtcConfig: { iceServers: [] } });
    await Promise.all([camera && room.localParticipant.setCameraEnabled(true), microphone && room.localParticipant.setMicrophoneEnabled(true)]);
  },

  /** Publishes a microphone later than at the join. */
  publish: () => Promise.all(rooms.map((room) => room.localParticipant.setMicrophoneEnabled(true))),

  ends,

  /** How often a room of this page was reconnected. */
  reconnects: () => reconnects,

  /** Makes livekit-client do what it does when its line breaks: `"signal-reconnect"` resumes, `"full-reconnect"` joins anew. */
  simulate: (scenario) => Promise.all(rooms.map((room) => room.simulateScenario(scenario))),

  /** Per room of this page: the identities of the others. */
  others() {
    return rooms.map((room) => [...room.remoteParticipants.keys()]);
  },

  /** Of each track of the others: whether it is muted. */
  muted() {
    const publications = rooms.flatMap((room) => [...room.remoteParticipants.values()].flatMap((p) => [...p.trackPublications.values()]));
    return publications.map(({ isMuted }) => isMuted);
  },

  /** The same of this page's own tracks. */
  ownMuted() {
    return rooms.flatMap((room) => [...room.localParticipant.trackPublications.values()].map(({ isMuted }) => isMuted));
  },

  /** What is received of everybody: for each track its kind, codec, and of a video its size and frames. */
  async received() {
    const publications = rooms.flatMap((room) => [...room.remoteParticipants.values()].flatMap((p) => [...p.trackPublications.values()]));
    return Promise.all(
      publications.filter(({ track }) => track).map(async ({ track, mimeType }) => {
        const report = [...(await track.receiver.getStats()).values()];
        const stream = report.find((entry) => entry.type === "inbound-rtp") ?? {};
        const codec = report.find((entry) => entry.id === stream.codecId)?.mimeType;
        const { frameWidth: width, framesDecoded: frames, keyFramesDecoded: keyFrames, freezeCount: freezes } = stream;
        return { kind: track.kind, paused: track.streamState === Track.StreamState.Paused, announced: mimeType, agreed: firstCodec(track.receiver), codec, width, frames, keyFrames, freezes };
      }),
    );
  },

  /** Of each layer of this page's camera, the lowest first: its width in pixels and how many frames were sent. */
  async sent() {
    const report = await Promise.all(connections.map((connection) => connection.getStats()));
    const streams = report.flatMap((stats) => [...stats.values()]).filter((entry) => entry.type === "outbound-rtp" && entry.kind === "video");
    return streams.map(({ rid, frameWidth: width, framesSent: frames }) => ({ rid, width, frames })).sort((one, other) => RIDS.indexOf(one.rid) - RIDS.indexOf(other.rid));
  },

  /** Subscribes to all tracks of the others, or to none. */
  subscribe(on) {
    for (const { remoteParticipants } of rooms) {
      for (const { trackPublications } of remoteParticipants.values()) trackPublications.forEach((publication) => publication.setSubscribed(on));
    }
  },

  /** Asks for a layer of every video: 0 low, 1 medium, 2 high. Without adaptive streams only. */
  setQuality(quality) {
    for (const { remoteParticipants } of rooms) {
      for (const { videoTrackPublications } of remoteParticipants.values()) videoTrackPublications.forEach((publication) => publication.setVideoQuality(quality));
    }
  },

  async leave() {
    await Promise.all(rooms.splice(0).map((room) => room.disconnect()));
  },
};
