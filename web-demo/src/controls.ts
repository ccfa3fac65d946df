// The call's header, notices, buttons and keys. Called by main.ts.

import type { Call } from "./call.ts";
import type { Trouble } from "./errors.ts";
import { byId, element, icon, showPrivacy, showToggle } from "./page.ts";

interface Notice {
    text: string;
    todo?: string;
    action?: { label: string; run: () => void };
}

/** Buttons by key; the lobby has the first two as well. */
const KEYS: Record<string, string[]> = {
    m: ["microphone", "lobby-microphone"],
    v: ["camera", "lobby-camera"],
    s: ["screen"],
    l: ["leave"],
};

/** Keys work everywhere but in text fields. Called once. */
export function listenToKeys(): void {
    addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
        if ((event.target as HTMLElement).matches?.("input, select, textarea")) return;
        const button = (KEYS[event.key.toLowerCase()] ?? []).map((id) => byId(id)).find((one) => one.offsetParent !== null);
        button?.click();
    });
}

export class Controls {
    private shownNotices = "";

    constructor(private readonly call: Call) {
        const { media } = call;
        byId("call-room").textContent = call.session.room.name;
        byId("microphone").onclick = () => void media.turn("microphone", !media.isOn("microphone"));
        byId("camera").onclick = () => void media.turn("camera", !media.isOn("camera"));
        byId("screen").onclick = () => void media.shareScreen(media.screen.length === 0);
        byId("leave").onclick = () => void call.leave();
        byId("leave").setAttribute("aria-label", "Leave the call");
        byId("leave").replaceChildren(icon("leave"));
        byId("screen").hidden = !navigator.mediaDevices?.getDisplayMedia; // phones
    }

    update(): void {
        const { call } = this;
        const { media } = call;
        const count = call.members().length + 1;
        byId("call-people").textContent = count === 1 ? "Only you so far" : `${count} people`;
        showPrivacy(byId("call-privacy"), call.privacy());

        const mic = media.isOn("microphone");
        const camera = media.isOn("camera");
        const screen = media.screen.length > 0;
        showToggle(byId("microphone"), "Microphone", mic ? "mic" : "mic-off", mic, media.troubles.has("microphone"));
        showToggle(byId("camera"), "Camera", camera ? "camera" : "camera-off", camera, media.troubles.has("camera"));
        showToggle(byId("screen"), "Screen sharing", screen ? "screen-off" : "screen", screen, media.troubles.has("screen"));
        byId("microphone").classList.toggle("off", !mic);
        byId("camera").classList.toggle("off", !camera);
        byId("screen").classList.toggle("active", screen);
        this.showNotices(notices(call));
    }

    private showNotices(list: Notice[]): void {
        const now = JSON.stringify(list);
        if (now === this.shownNotices) return; // a screen reader should read each once
        this.shownNotices = now;
        byId("notices").replaceChildren(
            ...list.map(({ text, todo, action }) => {
                const line = element("div", "notice");
                line.append(icon("warning"), element("span", "", text));
                if (todo) line.append(element("span", "todo", todo));
                if (action) {
                    const button = element("button", "", action.label);
                    button.onclick = action.run;
                    line.append(button);
                }
                return line;
            }),
        );
    }
}

/** Everything that is not as it should be right now. */
function notices(call: Call): Notice[] {
    const list: Notice[] = [];
    const say = (trouble: Trouble | undefined, otherwise: Notice): void =>
        void list.push(trouble ? { text: trouble.what, todo: trouble.todo } : otherwise);

    for (const { own, state, trouble, serviceUrl } of call.servers()) {
        if (state === "connected") continue;
        if (own && call.state === "joining") list.push({ text: "Connecting…" });
        else if (own)
            say(trouble, { text: "The connection broke. Reconnecting…", todo: "You stay in the call; nothing to do unless this lasts." });
        else
            say(trouble, {
                text: `Connecting to another media server: ${serviceUrl}`,
                todo: "Some people are seen and heard once that works.",
            });
    }
    if (!call.homeserverAnswers)
        list.push({
            text: "Your homeserver does not answer.",
            todo: "Sound and picture go on, but you do not see who joins or leaves until it is back.",
        });
    const muted = call.servers().filter(({ room }) => room && !room.canPlaybackAudio);
    if (muted.length > 0)
        list.push({
            text: "The browser holds back the sound until you click.",
            action: { label: "Play sound", run: () => muted.forEach(({ room }) => void room!.startAudio()) },
        });
    for (const { what, todo } of call.media.troubles.values()) list.push({ text: what, todo });
    for (const [sender] of call.refusedKeys)
        list.push({
            text: `A media key in the name of ${sender} was refused: it did not come end-to-end encrypted from their device.`,
            todo: "Their app may be too old, or someone interferes.",
        });
    return list;
}
