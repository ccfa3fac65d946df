// Every failure a person can meet, in plain words: what is wrong, where, what to do. Called by whoever talks to the
// outside; shown by page.ts. Pure: errors are recognised by their fields, so tests need no SDK.

export type TroubleCode =
    | "homeserver-unreachable"
    | "homeserver-refused"
    | "login-refused"
    | "session-ended"
    | "rate-limited"
    | "not-in-room"
    | "may-not-call"
    | "no-transport"
    | "token-unreachable"
    | "token-refused"
    | "token-unreadable"
    | "identity-mismatch"
    | "media-unreachable"
    | "media-refused"
    | "media-full"
    | "media-blocked"
    | "may-not-publish"
    | "replaced"
    | "removed"
    | "device-denied"
    | "device-missing"
    | "device-busy"
    | "insecure-page"
    | "no-encryption"
    | "device-keys"
    | "already-open"
    | "unknown";

export class Trouble extends Error {
    constructor(
        /** For tests and logs: stable, unlike the words. */
        readonly code: TroubleCode,
        /** One sentence: what is wrong. */
        readonly what: string,
        /** The host, device or setting it is about. */
        readonly where: string,
        /** What the person, or their administrator, can do. */
        readonly todo: string,
        cause?: unknown,
    ) {
        super(`${what} (${where})`, { cause });
        this.name = "Trouble";
    }
}

/** Fields by which Matrix, LiveKit and browser errors are told apart. */
interface Clues {
    name?: string;
    message?: string;
    errcode?: string;
    httpStatus?: number;
    status?: number;
    reasonName?: string;
    data?: { error?: string; retry_after_ms?: number };
}

const clues = (error: unknown): Clues => (typeof error === "object" && error !== null ? (error as Clues) : { message: String(error) });

/** The homeserver did not do what was asked; `doing` completes "while …". */
export function homeserverTrouble(error: unknown, homeserver: string, doing: string): Trouble {
    if (error instanceof Trouble) return error;
    const { errcode, httpStatus, data, message } = clues(error);
    const said = data?.error ?? message ?? "";
    if (errcode === "M_UNKNOWN_TOKEN" || errcode === "M_MISSING_TOKEN")
        return new Trouble("session-ended", "This login is no longer valid.", homeserver, "Log in again, or ask for a fresh link.", error);
    if (errcode === "M_LIMIT_EXCEEDED")
        return new Trouble("rate-limited", "The homeserver asks us to slow down.", homeserver, "Wait a minute, then try again.", error);
    if (httpStatus === undefined && errcode === undefined)
        return new Trouble(
            "homeserver-unreachable",
            `The homeserver does not answer while ${doing}.`,
            homeserver,
            "Check the address and your connection. If others cannot reach it either, tell its administrator.",
            error,
        );
    return new Trouble(
        "homeserver-refused",
        `The homeserver refused ${doing}: ${said || `HTTP ${httpStatus}`}`,
        homeserver,
        "Check that the address is right and that you may do this. If so, show this message to the administrator.",
        error,
    );
}

export function loginTrouble(error: unknown, homeserver: string): Trouble {
    const { errcode } = clues(error);
    if (errcode === "M_FORBIDDEN")
        return new Trouble(
            "login-refused",
            "User name or password is wrong.",
            homeserver,
            "Type them again; check that this is your homeserver.",
            error,
        );
    return homeserverTrouble(error, homeserver, "logging in");
}

export function joinRoomTrouble(error: unknown, room: string, homeserver: string): Trouble {
    const { errcode } = clues(error);
    if (errcode === "M_FORBIDDEN" || errcode === "M_NOT_FOUND" || errcode === "M_UNKNOWN")
        return new Trouble(
            "not-in-room",
            "You are not in this room, or it does not exist.",
            room,
            "Ask someone in the room to invite you, then open the link again.",
            error,
        );
    return homeserverTrouble(error, homeserver, "joining the room");
}

export function removedFromRoom(room: string): Trouble {
    return new Trouble(
        "removed",
        "You are no longer in this room.",
        room,
        "Someone removed you, or you left in another app. Ask for a new invitation to come back.",
    );
}

export function mayNotCall(room: string): Trouble {
    return new Trouble(
        "may-not-call",
        "Calls are not allowed for you in this room.",
        room,
        "A room administrator can allow them: power level 0 for “org.matrix.msc3401.call.member” events (in Element: Room settings → Voice & Video).",
    );
}

export function noTransport(serverName: string): Trouble {
    return new Trouble(
        "no-transport",
        "Your homeserver names no media server for calls.",
        serverName,
        "Its administrator must add “rtc_transports” to the homeserver, or “org.matrix.msc4143.rtc_foci” to .well-known/matrix/client.",
    );
}

/** The token service (`/sfu/get`) was not reached, or answered with `status` and a Matrix error. */
export function tokenTrouble(serviceUrl: string, status?: number, body?: { errcode?: string; error?: string }, cause?: unknown): Trouble {
    const said = body?.error ? ` It said: “${body.error}”` : "";
    if (status === undefined)
        return new Trouble(
            "token-unreachable",
            "The call server does not answer.",
            serviceUrl,
            "Check your connection. If the homeserver works and this does not, tell the administrator: the service is down, or its answers lack CORS headers.",
            cause,
        );
    if (status === 401)
        return new Trouble(
            "token-refused",
            `The call server could not confirm who you are.${said}`,
            serviceUrl,
            "Tell the administrator: the service must reach your homeserver's OpenID endpoint and must know its server name.",
            cause,
        );
    if (status === 403)
        return new Trouble(
            "token-refused",
            `The call server does not let you into this call.${said}`,
            serviceUrl,
            "Check that you are joined to the room; then ask the administrator.",
            cause,
        );
    if (status === 404)
        return new Trouble(
            "token-refused",
            "There is no call server at this address.",
            `${serviceUrl}/sfu/get`,
            "Tell the administrator: “livekit_service_url” points to the wrong place.",
            cause,
        );
    if (status === 429)
        return new Trouble("rate-limited", "The call server asks us to slow down.", serviceUrl, "Wait a minute, then try again.", cause);
    return new Trouble(
        "token-refused",
        `The call server failed (HTTP ${status}).${said}`,
        serviceUrl,
        "Try again; if it stays, show this message to the administrator.",
        cause,
    );
}

/** livekit-client could not connect: its `ConnectionError` carries `reasonName` and `status`. */
export function mediaTrouble(error: unknown, url: string): Trouble {
    if (error instanceof Trouble) return error;
    const { reasonName, status, message } = clues(error);
    if (status === 503 || status === 429 || status === 200)
        return new Trouble("media-full", "The media server takes no more people right now.", url, "Try again in a few minutes.", error);
    if (status === 404)
        return new Trouble(
            "media-refused",
            "The media server does not know this call.",
            url,
            "Join again; only people of the server's own homeserver can start a call.",
            error,
        );
    if (reasonName === "NotAllowed")
        return new Trouble(
            "media-refused",
            "The media server did not accept our token.",
            url,
            "Reload the page. If it stays, tell the administrator: clocks or keys differ.",
            error,
        );
    if (/could not establish (?!signal)/i.test(message ?? ""))
        // ICE or DTLS, not the WebSocket
        return new Trouble(
            "media-blocked",
            "The media server answers, but no sound or picture can get through.",
            url,
            "A firewall or VPN is in the way: try another network. The administrator: open the media port (UDP and TCP) and check the public address.",
            error,
        );
    return new Trouble(
        "media-unreachable",
        "The media server does not answer.",
        url,
        "Check your connection. If it stays, tell the administrator: WebSockets may not be passed on.",
        error,
    );
}

/** The media server ended the connection for good. `reason` is LiveKit's DisconnectReason by name. */
export function disconnectTrouble(reason: string | undefined, url: string): Trouble | undefined {
    if (reason === "DUPLICATE_IDENTITY")
        return new Trouble("replaced", "You joined this call somewhere else with the same login.", url, "Go on there, or rejoin here.");
    if (reason === "PARTICIPANT_REMOVED" || reason === "ROOM_DELETED" || reason === "ROOM_CLOSED")
        return new Trouble("removed", "You were removed from the call.", url, "If this is a mistake, rejoin or ask a room administrator.");
    return undefined; // anything else is a broken connection: try again
}

/** The media server connected us but took no track. */
export function publishTrouble(error: unknown): Trouble {
    if (/permission/i.test(clues(error).message ?? ""))
        return new Trouble(
            "may-not-publish",
            "You may watch and listen, but not send.",
            "the media server",
            "It takes media only from people of its own homeserver. Its administrator can allow yours.",
            error,
        );
    return new Trouble(
        "may-not-publish",
        "The media server did not take your sound or picture.",
        "the media server",
        "Turn camera and microphone off and on again; if that does not help, rejoin.",
        error,
    );
}

/** getUserMedia or getDisplayMedia failed. */
export function deviceTrouble(error: unknown, device: "camera" | "microphone" | "screen"): Trouble {
    const { name } = clues(error);
    if (name === "NotAllowedError" || name === "SecurityError")
        return new Trouble(
            "device-denied",
            `The browser does not let this page use your ${device}.`,
            device,
            `Click the ${device} or lock sign in the address bar, allow it, and try again.`,
            error,
        );
    if (name === "NotFoundError" || name === "OverconstrainedError" || name === "DevicesNotFoundError")
        return new Trouble(
            "device-missing",
            `No ${device} was found.`,
            device,
            `Plug one in or choose another. You can join without a ${device}.`,
            error,
        );
    if (name === "NotReadableError" || name === "AbortError" || name === "TrackStartError")
        return new Trouble(
            "device-busy",
            `Your ${device} does not start.`,
            device,
            "Another program may be using it: close that, then try again.",
            error,
        );
    return new Trouble(
        "unknown",
        `Your ${device} does not work: ${clues(error).message ?? name ?? "no reason given"}`,
        device,
        "Try another device, or reload the page.",
        error,
    );
}

export function unknownTrouble(error: unknown): Trouble {
    if (error instanceof Trouble) return error;
    return new Trouble(
        "unknown",
        clues(error).message ?? "Something unexpected went wrong.",
        "this page",
        "Reload the page. If it happens again, report it with this text.",
        error,
    );
}
