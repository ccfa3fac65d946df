// The page's parts that every screen needs: which screen is shown, icons, error boxes, announcements. The markup is in index.html.

import type { Trouble } from "./errors.ts";
import type { Privacy } from "./privacy.ts";

export type Screen = "loading" | "login" | "lobby" | "call" | "ended";

let shown: Screen = "loading";

/** Shows one screen, and only that. */
export function show(screen: Screen): void {
    shown = screen;
    for (const main of document.querySelectorAll<HTMLElement>("main")) main.hidden = main.id !== screen;
}

export const currentScreen = (): Screen => shown;

/** The element with this id; index.html has it. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
    const element = document.getElementById(id);
    if (!element) throw new Error(`index.html has no #${id}`);
    return element as T;
}

export function icon(name: string): SVGSVGElement {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.classList.add("icon");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    return svg;
}

/** What is wrong, where, what to do. */
export function troubleBox({ what, where, todo, code }: Trouble): HTMLElement {
    const box = element("div", "trouble");
    box.dataset.code = code;
    box.append(element("strong", "", what), element("span", "where", where), element("span", "", todo));
    return box;
}

export function element(tag: string, className = "", text = ""): HTMLElement {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
}

/** Tells people who do not see the screen. */
export function announce(text: string): void {
    byId("announcer").textContent = text;
}

const PRIVACY_ICON = { "end-to-end": "lock", pending: "lock", partial: "warning", test: "warning", transport: "unlock" } as const;

export function showPrivacy(place: HTMLElement, { level, label, detail }: Privacy): void {
    if (place.dataset.level === level && place.textContent === label) return;
    place.dataset.level = level;
    place.className = `privacy ${level}`;
    place.title = detail;
    place.setAttribute("aria-label", `${label}. ${detail}`);
    place.replaceChildren(icon(PRIVACY_ICON[level]), element("span", "", label));
}

/** A round on/off button: icon, state and name for screen readers. Pressed means: the device is on. */
export function showToggle(button: HTMLElement, name: string, iconName: string, on: boolean, broken = false): void {
    const state = `${name} ${on ? "on" : "off"}${broken ? ", does not work" : ""}`;
    if (button.getAttribute("aria-label") === state) return;
    button.setAttribute("aria-label", state);
    button.setAttribute("aria-pressed", String(on));
    button.classList.toggle("broken", broken);
    button.replaceChildren(icon(iconName));
}

/** Initials and a colour that is always the same for the same person. */
export function showAvatar(place: HTMLElement, name: string, userId: string): void {
    const words = name
        .replace(/^[@#]/, "")
        .split(/[\s._-]+/)
        .filter(Boolean);
    place.textContent = words
        .slice(0, 2)
        .map((word) => [...word][0]!.toUpperCase())
        .join("");
    let hue = 0;
    for (const char of userId) hue = (hue * 31 + char.codePointAt(0)!) % 360;
    place.style.setProperty("--hue", String(hue));
}
