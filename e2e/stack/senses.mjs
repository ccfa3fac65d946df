// What a person at a page sees and hears, measured in the page itself: pictures that move, sound that is decoded.
// The functions run inside the page (or Element Call's frame), so each stands alone and imports nothing.

/**
 * Watches every video for `watchMs`. A video moves when its clock runs and its pixels change; a frozen, black or
 * undecodable picture does not.
 * @returns {{name: string, width: number, height: number, moving: boolean}[]} `name` is the tile's caption.
 */
export async function watchVideos({ tile, caption, watchMs }) {
  const width = 64;
  const height = 36;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const look = (video) => {
    if (video.videoWidth === 0) return null;
    canvas.drawImage(video, 0, 0, width, height);
    return canvas.getImageData(0, 0, width, height).data;
  };
  const visible = (element) => element.checkVisibility() && element.getBoundingClientRect().width > 0;
  const videos = [...document.querySelectorAll("video")].filter((video) => video.srcObject && visible(video));
  const before = videos.map((video) => ({ time: video.currentTime, picture: look(video) }));
  await new Promise((resolve) => setTimeout(resolve, watchMs));
  return videos.map((video, i) => {
    const picture = look(video);
    let changed = 0;
    for (let p = 0; picture && before[i].picture && p < picture.length; p += 4) {
      const difference = Math.abs(picture[p] - before[i].picture[p]) + Math.abs(picture[p + 1] - before[i].picture[p + 1]) + Math.abs(picture[p + 2] - before[i].picture[p + 2]);
      if (difference > 48) changed += 1; // beyond what compression does to a still picture
    }
    return {
      name: video.closest(tile)?.querySelector(caption)?.textContent.trim() ?? "",
      width: video.videoWidth,
      height: video.videoHeight,
      moving: video.currentTime > before[i].time && changed >= 3,
    };
  });
}

/**
 * Listens for `listenMs` to every playing remote sound of the page.
 * @returns {number[]} for each the loudest root mean square of a 43 ms window, 0 (silence) to 1.
 */
export async function listen({ listenMs }) {
  const elements = [...document.querySelectorAll("audio, video")].filter(
    (element) => element.srcObject?.getAudioTracks().length > 0 && !element.paused && !element.muted && element.volume > 0,
  );
  const context = new AudioContext();
  await context.resume();
  const ears = elements.map((element) => {
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    new MediaStreamAudioSourceNode(context, { mediaStream: element.srcObject }).connect(analyser);
    return { analyser, window: new Float32Array(2048), loudest: 0 };
  });
  const end = performance.now() + listenMs;
  while (performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    for (const ear of ears) {
      ear.analyser.getFloatTimeDomainData(ear.window);
      const power = ear.window.reduce((sum, sample) => sum + sample * sample, 0) / ear.window.length;
      ear.loudest = Math.max(ear.loudest, Math.sqrt(power));
    }
  }
  await context.close();
  return ears.map((ear) => ear.loudest);
}
