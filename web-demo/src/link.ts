// A link that opens straight into a room's lobby: everything stands in the fragment, which browsers never send to a server.
// Called by main.ts at start. Pure.
//
//   #hs=https://matrix.example.org&room=!abc:example.org&user=@alice:example.org&token=syt_…&device=ABCDEF
//   #{"hs":"…","room":"…","user":"…","token":"…","device":"…"}
//
// Without `token` the rest fills in the login form.

export interface Link {
    /** Base URL of the homeserver's client-server API, or a Matrix server name. */
    homeserver: string;
    /** Room id or alias. */
    room: string;
    user: string;
    token: string;
    device: string;
    /** `lobby=skip`: join at once, with camera and microphone on. */
    skipLobby: boolean;
    /** `e2eeTransport=clear`: send and accept media keys without Olm. For tests only; see keyguard.ts. */
    clearKeys: boolean;
}

/** Reads the fragment, with or without `#`. What is missing is an empty string; an unreadable fragment is an empty link. */
export function parseLink(fragment: string): Link {
    const text = fragment.replace(/^#/, "");
    const decoded = decode(text).trim();
    const fields = decoded.startsWith("{") ? fromJson(decoded) : fromPairs(text);
    const field = (name: string): string => fields.get(name) ?? "";
    return {
        homeserver: field("hs"),
        room: field("room"),
        user: field("user"),
        token: field("token"),
        device: field("device"),
        skipLobby: field("lobby") === "skip",
        clearKeys: field("e2eeTransport") === "clear",
    };
}

function fromPairs(text: string): Map<string, string> {
    // Not URLSearchParams: it would turn a `+`, legal in user ids and tokens, into a space.
    return new Map(
        text.split("&").map((pair) => {
            const at = pair.indexOf("=");
            return at < 0 ? [decode(pair), ""] : [decode(pair.slice(0, at)), decode(pair.slice(at + 1))];
        }),
    );
}

function fromJson(text: string): Map<string, string> {
    try {
        return new Map(Object.entries(JSON.parse(text)).map(([name, value]) => [name, String(value)]));
    } catch {
        return new Map();
    }
}

function decode(text: string): string {
    try {
        return decodeURIComponent(text);
    } catch {
        return text; // a lone % typed by hand
    }
}
