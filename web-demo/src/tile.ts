// One tile: a person's camera, or a screen they share. Called by stage.ts.

import type { VideoTrack } from "livekit-client";

import type { Person } from "./people.ts";
import { byId, showAvatar } from "./page.ts";

/** Joining takes a second or two; someone without media after this long has a problem worth naming. */
const JOINING_MS = 12_000;

export class Tile {
    readonly root: HTMLElement;
    private readonly video: HTMLVideoElement;
    private readonly since = Date.now();
    private wasConnected = false;
    private track: VideoTrack | undefined;

    constructor(
        readonly kind: "camera" | "screen",
        onPin: () => void,
    ) {
        const template = byId<HTMLTemplateElement>("tile").content.cloneNode(true) as DocumentFragment;
        this.root = template.querySelector("li")!;
        this.video = this.part("video");
        this.part<HTMLButtonElement>(".pin").onclick = onPin;
        // Show the tile's picture only once there is one: an attached but empty video is a black box.
        this.video.onresize = () => this.showPicture();
        if (kind === "screen") this.root.classList.add("screen");
    }

    update(person: Person, pinned: boolean): void {
        this.attach(this.kind === "screen" ? person.screen : person.camera);
        this.wasConnected ||= person.connected;

        const { classList, dataset } = this.root;
        dataset.identity = person.identity;
        dataset.kind = this.kind;
        classList.toggle("speaking", person.speaking && this.kind === "camera");
        classList.toggle("mic-off", person.microphone !== "on" && this.kind === "camera");
        classList.toggle("away", !person.connected);
        this.video.classList.toggle("mirrored", person.mine && this.kind === "camera");

        const name = person.mine ? `${person.name} (you)` : person.name;
        this.text(".name", this.kind === "screen" ? `${name} – screen` : name);
        showAvatar(this.part(".avatar"), person.name, person.userId);

        const symbol = this.kind === "screen" ? "screen" : person.microphone !== "on" ? "mic-off" : person.speaking ? "speaking" : "mic";
        this.part(".label use").setAttribute("href", `#i-${symbol}`);

        const hint = this.kind === "camera" ? this.hint(person) : "";
        this.text(".hint", hint);
        this.part(".hint").hidden = hint === "";

        const pin = this.part(".pin");
        pin.setAttribute("aria-pressed", String(pinned));
        pin.setAttribute("aria-label", pinned ? `Stop showing ${name} large` : `Show ${name} large`);
        this.root.setAttribute(
            "aria-label",
            [this.part(".name").textContent, this.kind === "camera" && person.microphone !== "on" ? "microphone off" : "", hint]
                .filter(Boolean)
                .join(", "),
        );
        this.showPicture();
    }

    remove(): void {
        this.attach(undefined);
        this.root.remove();
    }

    /** What is not as it should be, in a few words. */
    private hint(person: Person): string {
        if (person.protection === "clear" && !person.mine) return "Not end-to-end encrypted: not shown";
        if (person.protection === "no-key" && !person.mine) return "Waiting for the encryption key…";
        if (person.protection === "broken") return "Cannot be decrypted: wrong or old key";
        if (person.connected) return person.quality === "poor" ? "Poor connection" : "";
        if (this.wasConnected) return "Connection lost…";
        return Date.now() - this.since > JOINING_MS ? "In the call, but not connected to the media server" : "Connecting…";
    }

    private attach(track: VideoTrack | undefined): void {
        if (track === this.track) return;
        this.track?.detach(this.video);
        this.track = track;
        track?.attach(this.video);
    }

    private showPicture(): void {
        this.root.classList.toggle("picture", this.track !== undefined && this.video.videoWidth > 0);
    }

    private part<T extends Element = HTMLElement>(selector: string): T {
        return this.root.querySelector<T>(selector)!;
    }

    private text(selector: string, text: string): void {
        const part = this.part(selector);
        if (part.textContent !== text) part.textContent = text;
    }
}
