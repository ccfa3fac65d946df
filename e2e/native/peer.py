"""The native LiveKit client (the Rust SDK inside the PyPI package `livekit`) as one caller.

Usage: peer.py URL TOKEN. Publishes a moving picture and a tone, receives everybody else, and prints once a second a line
of JSON, {"<identity>": {"frames": <decoded so far>, "moving": <picture changes>, "loudness": <RMS 0..1>}}, until SIGTERM.
"""

import asyncio
import json
import math
import signal
import struct
import sys

from livekit import rtc

WIDTH, HEIGHT, FRAMES_PER_SECOND = 320, 180, 15
SAMPLE_RATE, TONE_HZ = 48_000, 440
CHUNK = SAMPLE_RATE // 100  # 10 ms, what the SDK sends at a time


class Heard:
    """What has been received from one identity."""

    def __init__(self):
        self.frames = 0
        self.moving = False
        self.loudness = 0.0
        self.last_picture = None


async def send_picture(source):
    """A bright bar that wanders over a grey ground."""
    shift = 0
    chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
    while True:
        row = bytearray([90]) * WIDTH
        for x in range(40):
            row[(shift + x) % WIDTH] = 230
        data = bytes(row) * HEIGHT + chroma
        source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, data))
        shift += 7
        await asyncio.sleep(1 / FRAMES_PER_SECOND)


async def send_tone(source):
    phase = 0
    while True:
        samples = [int(8_000 * math.sin(2 * math.pi * TONE_HZ * (phase + i) / SAMPLE_RATE)) for i in range(CHUNK)]
        phase += CHUNK
        await source.capture_frame(rtc.AudioFrame(struct.pack(f"<{CHUNK}h", *samples), SAMPLE_RATE, 1, CHUNK))


async def receive_video(track, heard):
    async for event in rtc.VideoStream(track, format=rtc.VideoBufferType.I420):
        picture = bytes(event.frame.data[: event.frame.width * event.frame.height : 97])  # every 97th point of luma
        if heard.last_picture and len(picture) == len(heard.last_picture):
            heard.moving = sum(abs(a - b) > 24 for a, b in zip(picture, heard.last_picture)) > 0
        heard.last_picture = picture
        heard.frames += 1


async def receive_audio(track, heard):
    async for event in rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1):
        samples = event.frame.data
        heard.loudness = max(heard.loudness * 0.99, math.sqrt(sum(s * s for s in samples) / len(samples)) / 32_768)


async def main(url, token):
    room = rtc.Room()
    heard = {}
    tasks = set()

    def run(coroutine):
        task = asyncio.create_task(coroutine)
        tasks.add(task)

    @room.on("track_subscribed")
    def track_subscribed(track, _publication, participant):
        entry = heard.setdefault(participant.identity, Heard())
        receive = receive_video if track.kind == rtc.TrackKind.KIND_VIDEO else receive_audio
        run(receive(track, entry))

    @room.on("participant_disconnected")
    def participant_disconnected(participant):
        heard.pop(participant.identity, None)

    await room.connect(url, token)
    video, audio = rtc.VideoSource(WIDTH, HEIGHT), rtc.AudioSource(SAMPLE_RATE, 1)
    publish = room.local_participant.publish_track
    await publish(
        rtc.LocalVideoTrack.create_video_track("camera", video),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA),
    )
    await publish(
        rtc.LocalAudioTrack.create_audio_track("microphone", audio),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
    )
    run(send_picture(video))
    run(send_tone(audio))

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    while not stopped.is_set():
        report = {name: {"frames": h.frames, "moving": h.moving, "loudness": round(h.loudness, 4)} for name, h in heard.items()}
        print(json.dumps(report), flush=True)
        try:
            await asyncio.wait_for(stopped.wait(), 1)
        except asyncio.TimeoutError:
            pass
    for task in tasks:
        task.cancel()
    await room.disconnect()


asyncio.run(main(*sys.argv[1:]))
