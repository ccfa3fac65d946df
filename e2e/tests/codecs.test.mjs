// Calls in each codec that livekit-client can publish: scalable ones in layers of one stream, H.264 in streams of its own,
// sound with redundancy and cut out of it. The receiver gets the layer it asks for, and goes on when that changes.
import { Peer } from "../stack/participant.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** Widths of livekit-client's layers of a camera. */
const LOW = 320;
const HIGH = 1280;

/** Two cores encode and decode three layers without hardware. */
const SLOWLY = 60_000;

/** What the receiver can play of sound with redundancy. */
const PLAYS_RED = "red";
const PLAYS_OPUS = "opus";

for (const { videoCodec, mime, dialect, sound } of [
  { videoCodec: "vp9", mime: "video/VP9", dialect: "v1", sound: PLAYS_RED },
  { videoCodec: "av1", mime: "video/AV1", dialect: "v1", sound: PLAYS_OPUS },
  { videoCodec: "h264", mime: "video/H264", dialect: "v1", sound: PLAYS_RED },
  { videoCodec: "vp9", mime: "video/VP9", dialect: "v0", sound: PLAYS_RED },
]) {
  scenario.test(`${videoCodec} by ${dialect}`, async (step) => {
    const { stack } = scenario;
    const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
    const [alice, bob] = users;
    const identity = (user) => `${user.userId}:${user.deviceId}`;
    const singlePeerConnection = dialect === "v1";
    let receiver;

    const received = (wanted) => receiver.page.evaluate(() => window.peer.received()).then((tracks) => tracks.find(({ kind }) => kind === wanted) ?? {});
    const receives = (what, check) => until(what, SLOWLY, () => received("video"), check);

    await step("both join", async () => {
      receiver = await scenario.open(Peer, "receiver", `${stack.pages.url}/peer/`);
      if (sound === PLAYS_OPUS) await receiver.page.evaluate(forgetRedundancy);
      await receiver.join(await wayIn(stack.parlour.url, bob, roomId), { adaptiveStream: false, singlePeerConnection });
      const publisher = await scenario.open(Peer, "publisher", `${stack.pages.url}/peer/`);
      const publishDefaults = { videoCodec, backupCodec: false };
      await publisher.join(await wayIn(stack.parlour.url, alice, roomId), { camera: true, microphone: true, singlePeerConnection, publishDefaults });
    });

    await step("the camera is seen and the microphone heard", async () => {
      await receiver.sees([identity(alice)], SLOWLY);
      await receiver.hears(1, SLOWLY);
    });

    await step("in the codecs that were asked for", async () => {
      const [video, audio] = [await received("video"), await received("audio")];
      const codecs = `${video.announced} ${video.codec}, ${audio.announced} ${audio.agreed}`;
      if (codecs !== `${mime} ${mime}, audio/red ${sound}`) throw new Error(codecs);
    });

    await step("the best layer comes, then the one that is asked for", async () => {
      await receives("the high layer", ({ width }) => width === HIGH);
      await receiver.page.evaluate(() => window.peer.setQuality(0));
      await receives("the low layer", ({ width }) => width === LOW);
      const { frames } = await received("video");
      await receives("it goes on", (now) => now.frames > frames + 10);
      await receiver.page.evaluate(() => window.peer.setQuality(2));
      await receives("the high layer again", ({ width }) => width === HIGH);
      await receiver.sees([identity(alice)], SLOWLY);
    });
  });
}

/** Runs in the page: takes redundant audio out of its offers. */
function forgetRedundancy() {
  const { createOffer } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.createOffer = async function (...parameters) {
    const { type, sdp } = await createOffer.apply(this, parameters);
    const pt = sdp.match(/a=rtpmap:(\d+) red\/48000/)?.[1];
    const kept = sdp.split("\r\n").filter((line) => !new RegExp(`^a=(rtpmap|fmtp):${pt} `).test(line));
    return { type, sdp: kept.map((line) => (line.startsWith("m=audio") ? line.replace(` ${pt}`, "") : line)).join("\r\n") };
  };
}
