// Before the call: see yourself, choose devices, see who is there and how private it is. Called by main.ts.

import { createAudioAnalyser } from "livekit-client";

import type { Call } from "./call.ts";
import type { Device, Media } from "./media.ts";
import { byId, element, show, showAvatar, showPrivacy, showToggle, troubleBox } from "./page.ts";

const METER_INTERVAL_MS = 80;
/** Ordinary speech reaches about half of livekit-client's volume scale; the meter should use its width. */
const METER_GAIN = 1.6;

export class Lobby {
    private analyser: ReturnType<typeof createAudioAnalyser> | undefined;
    private metered: MediaStreamTrack | undefined;
    private readonly meter = setInterval(() => this.showLevel(), METER_INTERVAL_MS);

    constructor(
        private readonly call: Call,
        private readonly media: Media,
    ) {
        byId("lobby-room").textContent = call.session.room.name;
        showPrivacy(byId("lobby-privacy"), call.privacy());
        showAvatar(byId("preview-avatar"), call.self.name, call.self.userId);
        for (const device of ["camera", "microphone"] as const) {
            byId(`lobby-${device}`).onclick = () => void media.turn(device, !media.isOn(device));
            const select = byId<HTMLSelectElement>(`lobby-${device}s`);
            select.onchange = () => void media.choose(device, select.value);
        }
        navigator.mediaDevices?.addEventListener("devicechange", this.listDevices);
    }

    /** Turns the devices on and waits for the Join button. */
    async wait(): Promise<void> {
        show("lobby");
        byId("join").focus();
        const pressed = new Promise<void>((joined) => (byId("join").onclick = () => joined()));
        await Promise.all([this.media.turn("microphone", true), this.media.turn("camera", true)]);
        await this.listDevices(); // labels are known only now that we have permission
        await pressed;
        this.close();
    }

    update(): void {
        const { call, media } = this;
        const names = call.members().map((one) => one.name);
        byId("lobby-people").textContent = names.length === 0 ? "Nobody is here yet." : `In the call: ${names.join(", ")}`;
        for (const device of ["camera", "microphone"] as const) {
            const on = media.isOn(device);
            showToggle(
                byId(`lobby-${device}`),
                device === "camera" ? "Camera" : "Microphone",
                `${device === "camera" ? "camera" : "mic"}${on ? "" : "-off"}`,
                on,
                media.troubles.has(device),
            );
            byId(`lobby-${device}`).classList.toggle("off", !on);
        }
        byId("lobby-troubles").replaceChildren(...[...media.troubles.values()].map(troubleBox));
        this.showPicture();
        this.listen();
    }

    private showPicture(): void {
        const video = byId<HTMLVideoElement>("preview");
        const on = this.media.isOn("camera");
        video.hidden = !on;
        byId("preview-avatar").hidden = on;
        if (on) this.media.camera!.attach(video);
    }

    private readonly listDevices = async (): Promise<void> => {
        for (const device of ["camera", "microphone"] as const) {
            const select = byId<HTMLSelectElement>(`lobby-${device}s`);
            const inputs = await this.media.inputs(device as Device);
            const options = inputs.map((input, index) => {
                const option = element(
                    "option",
                    "",
                    input.label || `${device === "camera" ? "Camera" : "Microphone"} ${index + 1}`,
                ) as HTMLOptionElement;
                option.value = input.deviceId;
                return option;
            });
            if (options.length === 0) options.push(element("option", "", "None found") as HTMLOptionElement);
            select.replaceChildren(...options);
            select.disabled = inputs.length === 0;
            select.value = this.media.currentInput(device) ?? select.value;
        }
    };

    private listen(): void {
        const track = this.media.microphone;
        if (track?.mediaStreamTrack === this.metered) return;
        void this.analyser?.cleanup();
        this.metered = track?.mediaStreamTrack;
        this.analyser = track && createAudioAnalyser(track, { cloneTrack: true });
    }

    private showLevel(): void {
        const level = this.media.isOn("microphone") ? (this.analyser?.calculateVolume() ?? 0) : 0;
        byId("lobby-level").style.setProperty("--level", String(Math.min(1, level * METER_GAIN)));
    }

    private close(): void {
        clearInterval(this.meter);
        void this.analyser?.cleanup();
        this.media.camera?.detach(byId<HTMLVideoElement>("preview"));
        navigator.mediaDevices?.removeEventListener("devicechange", this.listDevices);
    }
}
