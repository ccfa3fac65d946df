// The page from start to end: link or login → room → lobby → call → left, and around again. Start reading here, then call.ts.

import { LogLevel, setLogLevel } from "livekit-client";

import { Call } from "./call.ts";
import { Controls, listenToKeys } from "./controls.ts";
import { unknownTrouble, type Trouble } from "./errors.ts";
import { parseLink, type Link } from "./link.ts";
import { Lobby } from "./lobby.ts";
import { askLogin } from "./login.ts";
import { Media } from "./media.ts";
import { observe } from "./observe.ts";
import { announce, byId, show, troubleBox } from "./page.ts";
import { openRoom, resume, type Session } from "./session.ts";
import { Stage } from "./stage.ts";

/** The link is kept here for reloads of this tab, so that the address bar does not show the token. */
const REMEMBERED = "parlour.link";

async function main(): Promise<void> {
    setLogLevel(LogLevel.warn); // at lower levels the URL with the token is logged
    listenToKeys();
    addEventListener("hashchange", () => location.reload()); // another link, pasted into this tab

    const link = readLink();
    try {
        const session = await open(link);
        for (let first = true; ; first = false) {
            const { joined, trouble } = await attend(session, link, first && link.skipLobby);
            await askAgain(!joined ? "You could not join" : trouble ? "The call ended" : "You left the call", trouble, "Rejoin");
        }
    } catch (error) {
        console.error(error);
        await askAgain("The call could not be opened", unknownTrouble(error), "Try again");
        location.reload();
    }
}

function readLink(): Link {
    const fragment = location.hash.length > 1 ? location.hash : (sessionStorage.getItem(REMEMBERED) ?? "");
    sessionStorage.setItem(REMEMBERED, fragment);
    history.replaceState(null, "", location.pathname + location.search);
    return parseLink(fragment);
}

async function open(link: Link): Promise<Session> {
    if (link.token && link.room) {
        loading("Checking the login…");
        const credentials = await resume(link.homeserver, link.token);
        loading("Opening the room…");
        return openRoom(credentials, link.room);
    }
    const { credentials, room } = await askLogin(link);
    const { homeserver: hs, accessToken: token } = credentials;
    sessionStorage.setItem(REMEMBERED, JSON.stringify({ hs, room, token })); // a reload keeps the login
    loading("Opening the room…");
    return openRoom(credentials, room);
}

/** One visit: lobby, call, until it is left. `trouble` says why it ended, if not by our own wish. */
async function attend(session: Session, link: Link, skipLobby: boolean): Promise<{ joined: boolean; trouble: Trouble | undefined }> {
    let pending = false;
    let redraw = (): void => {};
    // Many events come at once: draw once for all of them. Not requestAnimationFrame, which rests in hidden tabs.
    const changed = (): void => {
        if (pending) return;
        pending = true;
        setTimeout(() => {
            pending = false;
            redraw();
        }, 0);
    };

    const media = new Media(changed);
    const call = new Call(session, media, link.clearKeys ? "clear" : "olm", changed);
    observe(call);
    document.title = `${session.room.name} – Parlour`;

    if (skipLobby) {
        await Promise.all([media.turn("microphone", true), media.turn("camera", true)]);
    } else {
        const lobby = new Lobby(call, media);
        redraw = () => lobby.update();
        changed();
        await lobby.wait();
    }

    const stage = new Stage();
    const controls = new Controls(call);
    show("call");
    byId("call").focus();
    let joined = false;
    const left = new Promise<void>((resolve) => {
        let before = call.members();
        redraw = () => {
            if (call.state === "left") return resolve();
            joined ||= call.state === "joined";
            before = announceChanges(call, before);
            controls.update();
            stage.update(call.people());
        };
    });
    // Hints like "Connecting…" change with time alone.
    const clock = setInterval(changed, 2000);
    changed();
    void call.join();
    await left;
    clearInterval(clock);
    redraw = () => {};
    stage.clear();
    await call.leave(); // has begun; wait for its end
    return { joined, trouble: call.trouble };
}

function announceChanges(call: Call, before: ReturnType<Call["members"]>): ReturnType<Call["members"]> {
    const now = call.members();
    const joined = now.filter((one) => !before.some((old) => old.identity === one.identity));
    const gone = before.filter((old) => !now.some((one) => one.identity === old.identity));
    if (joined.length > 0) announce(`${joined.map((one) => one.name).join(", ")} joined`);
    if (gone.length > 0) announce(`${gone.map((one) => one.name).join(", ")} left`);
    return now;
}

function loading(text: string): void {
    byId("loading-text").textContent = text;
    show("loading");
}

/** The last screen; resolves when the person wants another try. */
function askAgain(title: string, trouble: Trouble | undefined, label: string): Promise<void> {
    byId("ended-title").textContent = title;
    byId("ended-trouble").replaceChildren(...(trouble ? [troubleBox(trouble)] : []));
    const button = byId("again");
    button.textContent = label;
    show("ended");
    button.focus();
    return new Promise((resolve) => (button.onclick = () => resolve()));
}

void main();
