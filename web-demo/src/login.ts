// The login form, for people who come without a link. Called by main.ts.

import { unknownTrouble } from "./errors.ts";
import type { Link } from "./link.ts";
import { byId, show, troubleBox } from "./page.ts";
import { login, type Credentials } from "./session.ts";

/** Asks until the homeserver accepts. What the link knows is filled in. */
export function askLogin(link: Link): Promise<{ credentials: Credentials; room: string }> {
    const form = byId<HTMLFormElement>("login-form");
    const field = (name: string): HTMLInputElement => form.elements.namedItem(name) as HTMLInputElement;
    const button = form.querySelector("button")!;
    field("homeserver").value = link.homeserver;
    field("user").value = link.user;
    field("room").value = link.room;
    show("login");
    [...form.querySelectorAll("input")].find((input) => input.value === "")?.focus();

    return new Promise((resolve) => {
        form.onsubmit = async (event) => {
            event.preventDefault();
            button.disabled = true;
            byId("login-trouble").replaceChildren();
            try {
                const credentials = await login(field("homeserver").value, field("user").value.trim(), field("password").value);
                field("password").value = "";
                resolve({ credentials, room: field("room").value.trim() });
            } catch (error) {
                byId("login-trouble").replaceChildren(troubleBox(unknownTrouble(error)));
            }
            button.disabled = false;
        };
    });
}
