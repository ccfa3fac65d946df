// My camera, microphone and screen: on or off, which device, and the tracks to publish. One object lives from the lobby
// through the call, so a browser asks for permission once. Called by lobby.ts, controls.ts and call.ts.

import {
    TrackEvent,
    VideoPresets,
    createLocalAudioTrack,
    createLocalScreenTracks,
    createLocalVideoTrack,
    type LocalAudioTrack,
    type LocalTrack,
    type LocalVideoTrack,
    type Room,
    type TrackPublishOptions,
} from "livekit-client";

import { Trouble, deviceTrouble, publishTrouble } from "./errors.ts";

export type Device = "camera" | "microphone";

const INPUT = { camera: "videoinput", microphone: "audioinput" } as const;

export class Media {
    camera: LocalVideoTrack | undefined;
    microphone: LocalAudioTrack | undefined;
    screen: LocalTrack[] = [];
    /** Why a device does not work, until it does. */
    readonly troubles = new Map<Device | "screen" | "publishing", Trouble>();
    private room: Room | undefined;
    private readonly chosen = new Map<Device, string>();
    private queue = Promise.resolve();

    constructor(private readonly onChange: () => void) {}

    isOn(device: Device): boolean {
        const track = this[device];
        return track !== undefined && !track.isMuted;
    }

    /** Turns a device on or off. Off stops the camera itself (its light goes out); the microphone stays open, muted. */
    async turn(device: Device, on: boolean): Promise<void> {
        await this.trying(device, async () => {
            const track = this[device];
            if (!on) await track?.mute();
            else if (track) await track.unmute();
            else await this.open(device);
        });
    }

    /** Switches to another input; remembered for when the device is turned on. */
    async choose(device: Device, deviceId: string): Promise<void> {
        this.chosen.set(device, deviceId);
        await this.trying(device, async () => {
            await this[device]?.setDeviceId(deviceId);
        });
    }

    /** The inputs of one kind; labels are empty until permission is given. */
    async inputs(device: Device): Promise<MediaDeviceInfo[]> {
        const all = await navigator.mediaDevices.enumerateDevices();
        return all.filter((one) => one.kind === INPUT[device] && one.deviceId !== "");
    }

    currentInput(device: Device): string | undefined {
        return this[device]?.mediaStreamTrack.getSettings().deviceId ?? this.chosen.get(device);
    }

    async shareScreen(on: boolean): Promise<void> {
        if (!on) {
            const tracks = this.screen;
            this.screen = [];
            await Promise.all(tracks.map((track) => this.unpublish(track)));
            this.onChange();
            return;
        }
        try {
            this.screen = await createLocalScreenTracks({ audio: true, resolution: { width: 1920, height: 1080, frameRate: 30 } });
            this.troubles.delete("screen");
            // The browser has a "stop sharing" button of its own.
            for (const track of this.screen) track.mediaStreamTrack.addEventListener("ended", () => void this.shareScreen(false));
            await Promise.all(this.screen.map((track) => this.publish(track)));
        } catch (error) {
            if ((error as Error).name !== "NotAllowedError") this.troubles.set("screen", deviceTrouble(error, "screen")); // cancelling is no error
        }
        this.onChange();
    }

    /** Publishes everything that is on, now and from now on. Again with a new room after a lost connection. */
    async publishTo(room: Room): Promise<void> {
        this.room = room;
        const tracks = [this.microphone, this.camera, ...this.screen].filter((track) => track !== undefined);
        await Promise.all(tracks.map((track) => this.publish(track)));
    }

    stop(): void {
        this.room = undefined;
        for (const track of [this.camera, this.microphone, ...this.screen]) track?.stop();
        this.camera = this.microphone = undefined;
        this.screen = [];
    }

    private async open(device: Device): Promise<void> {
        if (!navigator.mediaDevices)
            throw new Trouble(
                "insecure-page",
                "Browsers give a page camera and microphone only over HTTPS or on localhost.",
                location.origin,
                "Open this page with https://.",
            );
        const deviceId = this.chosen.get(device);
        if (device === "camera") this.camera = await createLocalVideoTrack({ deviceId, resolution: VideoPresets.h720.resolution });
        else this.microphone = await createLocalAudioTrack({ deviceId });
        await this.publish(this[device]!);
    }

    private async publish(track: LocalTrack): Promise<void> {
        // The settings of Element Call: VP8 with two smaller simulcast layers. RED off: it cannot be unpacked when encrypted.
        const options: TrackPublishOptions = {
            simulcast: true,
            videoCodec: "vp8",
            videoSimulcastLayers: [VideoPresets.h180, VideoPresets.h360],
            dtx: true,
            red: false,
        };
        try {
            await this.room?.localParticipant.publishTrack(track, options);
            // livekit-client does not pass on a click that came while it was publishing.
            track.emit(track.isMuted ? TrackEvent.Muted : TrackEvent.Unmuted, track);
            this.troubles.delete("publishing");
        } catch (error) {
            this.troubles.set("publishing", publishTrouble(error));
        }
        this.onChange();
    }

    private async unpublish(track: LocalTrack): Promise<void> {
        await this.room?.localParticipant.unpublishTrack(track);
        track.stop();
    }

    /** One at a time: two quick clicks must not open a camera twice. */
    private trying(device: Device, action: () => Promise<void>): Promise<void> {
        this.queue = this.queue.then(async () => {
            try {
                await action();
                this.troubles.delete(device);
            } catch (error) {
                this.troubles.set(device, error instanceof Trouble ? error : deviceTrouble(error, device));
            }
            this.onChange();
        });
        return this.queue;
    }
}
