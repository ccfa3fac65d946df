// What the page may claim about end-to-end encryption. Called by call.ts. Pure.

import type { KeyTransport } from "./keyguard.ts";

/** What is true of one person's media, as this device sees it. */
export type Protection =
    | "encrypted" // we have the key, and frames decrypt
    | "no-key" // encrypted, but no key has come yet
    | "broken" // there is a key, but frames do not decrypt
    | "clear" // not end-to-end encrypted although the call is
    | "transport" // the call is not end-to-end encrypted, and neither are these
    | "none-yet"; // no media so far

export interface Privacy {
    level: "end-to-end" | "partial" | "pending" | "test" | "transport";
    label: string;
    detail: string;
}

/** What the page says about the whole call; `ownKey`: do we have a key to encrypt with? It claims "End-to-end encrypted" only when all media in it are. */
export function privacyOf(encryptedRoom: boolean, keys: KeyTransport, ownKey: boolean, everyone: Protection[]): Privacy {
    if (!encryptedRoom)
        return {
            level: "transport",
            label: "Encrypted in transit to the server only",
            detail: "This room is not encrypted. Nobody on the way can listen, but the call server could.",
        };
    if (keys === "clear")
        return {
            level: "test",
            label: "Test mode: keys are not protected",
            detail: "Media are encrypted, but this page was opened with e2eeTransport=clear: the homeserver can read and replace the keys.",
        };
    const clear = everyone.filter((one) => one === "clear").length;
    if (clear > 0)
        return {
            level: "partial",
            label: `${clear === 1 ? "One person is" : `${clear} people are`} not end-to-end encrypted`,
            detail: "Their media are not played. Yours are encrypted and they cannot see or hear you unless their app has your key.",
        };
    if (!ownKey)
        return {
            level: "pending",
            label: "Will be end-to-end encrypted",
            detail: "Keys are exchanged when you join. Until then nothing is sent.",
        };
    if (everyone.some((one) => one === "no-key" || one === "broken"))
        return {
            level: "pending",
            label: "Waiting for encryption keys",
            detail: "What you send is encrypted. Someone's key is missing, so their media cannot be shown yet.",
        };
    return {
        level: "end-to-end",
        label: "End-to-end encrypted",
        detail: "Only the people in this call can see and hear it. This page does not check whether their devices are verified.",
    };
}
