// A viewer whose line becomes narrow, and wide again: Chromium throttles what reaches its WebRTC sockets. The picture becomes
// smaller, then the server says that it has stopped it, and speech goes on; afterwards all is as before.
import { Peer } from "../stack/participant.mjs";
import { wayIn } from "../stack/token-service.mjs";
import { until } from "../stack/until.mjs";
import { Scenario } from "./scenario.mjs";

const scenario = Scenario.forThisFile();

/** The estimate falls in a second or two, and feels its way up again in ten to twenty. */
const SLOWLY = 60_000;

/** Widths of livekit-client's layers of a camera. */
const LOW = 320;
const HIGH = 1280;

/** kbit/s of the line. The layers take about 150, 500 and 1700; speech takes 40, with redundancy 80. */
const FOR_THE_LOWEST = 400;
const FOR_SPEECH = 120;
const WIDE = 50_000;

scenario.test("a line becomes narrow and wide again", async (step) => {
  const { stack } = scenario;
  const { roomId, users } = await scenario.room({ names: ["Alice", "Bob"] });
  const [alice, bob] = users;
  const identity = `${alice.userId}:${alice.deviceId}`;
  let viewer;
  let line;

  // TURN is left out: Chromium goes round a line that fails by the relay, and over TCP it is not throttled.
  // Chromium counts WebRTC in only with a queue's length, in packets, and only on sockets made afterwards.
  const throttle = (kbits) =>
    line.send("Network.emulateNetworkConditions", {
      offline: false,
      latency: 0,
      packetQueueLength: 30,
      downloadThroughput: (kbits * 1000) / 8,
      uploadThroughput: -1,
    });
  const camera = () => viewer.page.evaluate(() => window.peer.received()).then((tracks) => tracks.find(({ kind }) => kind === "video") ?? {});
  const shows = (what, check) => until(what, SLOWLY, camera, check);

  await step("both join", async () => {
    viewer = await scenario.open(Peer, "viewer", `${stack.pages.url}/peer/`);
    line = await viewer.context.newCDPSession(viewer.page);
    await line.send("Network.enable");
    await throttle(WIDE);
    await viewer.join(await wayIn(stack.parlour.url, bob, roomId), { adaptiveStream: false, turn: false });
    const publisher = await scenario.open(Peer, "publisher", `${stack.pages.url}/peer/`);
    await publisher.join(await wayIn(stack.parlour.url, alice, roomId), { camera: true, microphone: true, publishDefaults: { videoCodec: "vp8" } });
    await shows("the best layer", ({ width }) => width === HIGH);
    await viewer.hears(1, SLOWLY);
  });

  await step("on a narrow line the picture is small", async () => {
    await throttle(FOR_THE_LOWEST);
    await shows("the lowest layer", ({ width }) => width === LOW);
  });

  await step("on a very narrow one there is speech, and the viewer is told", async () => {
    await throttle(FOR_SPEECH);
    await shows("a paused stream", ({ paused }) => paused);
    await viewer.hears(1, SLOWLY);
  });

  await step("on a wide one the picture is back", async () => {
    await throttle(WIDE);
    await shows("no paused stream", ({ paused }) => !paused);
    await shows("the best layer", ({ width }) => width === HIGH);
    await viewer.sees([identity], SLOWLY);
  });
});
