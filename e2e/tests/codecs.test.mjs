// Calls in each codec that livekit-client can publish: scalable ones in layers of one stream, H.264 in streams of its own,
// sound with and without redundancy. The receiver gets the layer it asks for, and sees no freeze when that changes.
import { Peer } from "../stack/participant.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** Widths of livekit-client's layers of a camera. */
const LOW = 320;
const HIGH = 1280;

/** Two cores encode and decode three layers without hardware. */
const SLOWLY = 30_000;

for (const [videoCodec, mime, dialect] of [
  ["vp9", "video/VP9", "v1"],
  ["av1", "video/AV1", "v1"],
  ["h264", "video/H264", "v1"],
  ["vp9", "video/VP9", "v0"],
]) {
  scenario.test(`${videoCodec} by ${dialect}`, async (step) => {
    const { stack } = scenario;
    const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
    const [alice, bob] = users;
    const identity = (user) => `${user.userId}:${user.deviceId}`;
    const singlePeerConnection = dialect === "v1";
    let publisher, receiver;

    const video = () => receiver.page.evaluate(() => window.peer.received()).then((tracks) => tracks.find(({ kind }) => kind === "video") ?? {});
    const receives = (what, check) => until(what, SLOWLY, video, check);

    await step("both join", async () => {
      receiver = await scenario.open(Peer, "receiver", `${stack.pages.url}/peer/`);
      await receiver.join(await wayIn(stack.parlour.url, bob, roomId), { adaptiveStream: false, singlePeerConnection });
      publisher = await scenario.open(Peer, "publisher", `${stack.pages.url}/peer/`);
      const publishDefaults = { videoCodec, backupCodec: false, red: singlePeerConnection };
      await publisher.join(await wayIn(stack.parlour.url, alice, roomId), { camera: true, microphone: true, singlePeerConnection, publishDefaults });
    });

    await step(`${mime} is seen and the microphone heard`, async () => {
      await receiver.sees([identity(alice)], SLOWLY);
      await receiver.hears(1, SLOWLY);
      const tracks = await receiver.page.evaluate(() => window.peer.received());
      const codecs = tracks.map(({ announced, codec }) => `${announced} ${codec}`).sort();
      // Redundant sound may arrive without its redundancy: what a receiver gets depends on what its section says.
      const sounds = singlePeerConnection ? ["audio/red audio/red", "audio/red audio/opus"] : ["audio/opus audio/opus"];
      const wanted = sounds.map((sound) => [sound, `${mime} ${mime}`].join());
      if (!wanted.includes(codecs.join())) throw new Error(`${codecs} instead of ${wanted.join(" or ")}`);
    });

    await step("the best layer comes, then the one that is asked for", async () => {
      await receives("the high layer", ({ width }) => width === HIGH);
      await receiver.page.evaluate(() => window.peer.setQuality(0));
      await receives("the low layer", ({ width }) => width === LOW);
      const { frames } = await video();
      await receives("it goes on", (now) => now.frames > frames + 10);
      await receiver.page.evaluate(() => window.peer.setQuality(2));
      await receives("the high layer again", ({ width }) => width === HIGH);
      await receiver.sees([identity(alice)], SLOWLY);
    });
  });
}
