// A Matrix login and the one room this page is about. Called by main.ts.

import { ClientEvent, Filter, SyncState, createClient, type MatrixClient, type Room } from "matrix-js-sdk";
import { AutoDiscovery } from "matrix-js-sdk/lib/autodiscovery.js";

import { Trouble, homeserverTrouble, joinRoomTrouble, loginTrouble } from "./errors.ts";

export interface Credentials {
    /** Base URL of the client-server API, without a trailing slash. */
    homeserver: string;
    userId: string;
    deviceId: string;
    accessToken: string;
}

export interface Session {
    credentials: Credentials;
    client: MatrixClient;
    room: Room;
    /** Has the room end-to-end encryption? Then so have its calls. */
    encrypted: boolean;
}

/** What a person types ("example.org", "https://matrix.example.org") to the base URL. */
export async function homeserverUrl(typed: string): Promise<string> {
    const text = typed.trim().replace(/\/+$/, "");
    if (/^https?:\/\//.test(text)) return text;
    const found = await AutoDiscovery.findClientConfig(text);
    return (found["m.homeserver"].base_url ?? `https://${text}`).replace(/\/+$/, "");
}

/** Logs in with a password and gets a new device. */
export async function login(typedHomeserver: string, user: string, password: string): Promise<Credentials> {
    const homeserver = await homeserverUrl(typedHomeserver);
    try {
        const answer = await createClient({ baseUrl: homeserver }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user },
            password,
            initial_device_display_name: "Parlour web demo",
        });
        return { homeserver, userId: answer.user_id, deviceId: answer.device_id, accessToken: answer.access_token };
    } catch (error) {
        throw loginTrouble(error, homeserver);
    }
}

/** Takes over a login from a link: the homeserver says whose token it is. */
export async function resume(typedHomeserver: string, accessToken: string): Promise<Credentials> {
    const homeserver = await homeserverUrl(typedHomeserver);
    try {
        const { user_id: userId, device_id: deviceId } = await createClient({ baseUrl: homeserver, accessToken }).whoami();
        if (!deviceId)
            throw new Trouble("session-ended", "This token belongs to no device.", homeserver, "Use the token of a normal login.");
        return { homeserver, userId, deviceId, accessToken };
    } catch (error) {
        throw homeserverTrouble(error, homeserver, "checking the login");
    }
}

/** Joins the room if need be, starts crypto if the room is encrypted, and syncs: this room, all of its state. */
export async function openRoom(credentials: Credentials, roomIdOrAlias: string): Promise<Session> {
    const { homeserver, userId, deviceId, accessToken } = credentials;
    await takeDevice(credentials);
    const client = createClient({ baseUrl: homeserver, userId, deviceId, accessToken });

    const { roomId } = await client.joinRoom(roomIdOrAlias).catch((error) => {
        throw joinRoomTrouble(error, roomIdOrAlias, homeserver);
    });
    const encrypted = await isEncrypted(client, roomId, homeserver);
    if (encrypted) await startCrypto(client, credentials); // before syncing: to-device messages come only once

    // Of a busy account we need one room: the filter makes the first sync small. To-device messages are not filtered.
    const filter = new Filter(userId);
    filter.setDefinition({ room: { rooms: [roomId] } });
    await client.startClient({ filter, disablePresence: true });
    await firstSync(client, homeserver);

    const room = client.getRoom(roomId);
    if (!room) throw joinRoomTrouble({ errcode: "M_NOT_FOUND" }, roomIdOrAlias, homeserver);
    if (encrypted) await deviceKeysPublished(client, credentials);
    return { credentials, client, room, encrypted };
}

async function isEncrypted(client: MatrixClient, roomId: string, homeserver: string): Promise<boolean> {
    try {
        await client.getStateEvent(roomId, "m.room.encryption", "");
        return true;
    } catch (error) {
        if ((error as { errcode?: string }).errcode === "M_NOT_FOUND") return false;
        throw homeserverTrouble(error, homeserver, "reading the room's encryption");
    }
}

/**
 * The crypto store belongs to one device and survives a reload: a device must keep its keys as long as its token. A link used
 * in a second browser would bring a second set; that is noticed before it is uploaded and spoils the first.
 */
async function startCrypto(client: MatrixClient, credentials: Credentials): Promise<void> {
    const { homeserver, userId, deviceId } = credentials;
    try {
        await client.initRustCrypto({ cryptoDatabasePrefix: `parlour:${userId}:${deviceId}` });
    } catch (error) {
        throw new Trouble(
            "no-encryption",
            "This browser could not start end-to-end encryption.",
            "this browser",
            "Allow storage for this page (private windows may forbid it) and use a current browser. The server must send .wasm as application/wasm.",
            error,
        );
    }
    const { curve25519 } = await client.getCrypto()!.getOwnDeviceKeys();
    const published = await publishedKey(client, credentials);
    if (published && published !== curve25519)
        throw new Trouble(
            "device-keys",
            "This login was used in another browser, which has its encryption keys. Nobody could send this one a key.",
            homeserver,
            "Go on in the other browser, log in with your password instead of the link, or ask for a fresh link.",
        );
}

/** Our identity key as the homeserver shows it to others; undefined before the first upload. */
async function publishedKey(client: MatrixClient, { homeserver, userId, deviceId }: Credentials): Promise<string | undefined> {
    const answer = await client.downloadKeysForUsers([userId]).catch((error) => {
        throw homeserverTrouble(error, homeserver, "looking up encryption keys");
    });
    return answer.device_keys[userId]?.[deviceId]?.keys[`curve25519:${deviceId}`];
}

/** Attempts × pause: 10 s, a slow homeserver's time to take an upload. */
const KEY_CHECKS = 40;
const KEY_CHECK_PAUSE_MS = 250;

/** Others can send us keys only once the homeserver shows ours. */
async function deviceKeysPublished(client: MatrixClient, credentials: Credentials): Promise<void> {
    for (let check = 0; check < KEY_CHECKS; check++) {
        if (await publishedKey(client, credentials)) return;
        await new Promise((done) => setTimeout(done, KEY_CHECK_PAUSE_MS));
    }
    throw new Trouble(
        "device-keys",
        "The homeserver did not take our encryption keys.",
        credentials.homeserver,
        "Try again; if it stays, tell the administrator.",
    );
}

function firstSync(client: MatrixClient, homeserver: string): Promise<void> {
    return new Promise((resolve, reject) => {
        client.on(ClientEvent.Sync, function listener(state, _previous, data) {
            if (state === SyncState.Prepared) resolve();
            else if (state === SyncState.Error) reject(homeserverTrouble(data?.error, homeserver, "loading the room"));
            else return;
            client.off(ClientEvent.Sync, listener);
        });
    });
}

/** How long a reloaded page waits for its former self to let go of the device. */
const TAKE_DEVICE_MS = 3000;

/** One tab per device: two would overwrite each other's crypto store and take turns in the call. Held until the tab closes. */
function takeDevice({ userId, deviceId }: Credentials): Promise<void> {
    return new Promise((taken, refused) => {
        navigator.locks
            .request(`parlour:${userId}:${deviceId}`, { signal: AbortSignal.timeout(TAKE_DEVICE_MS) }, () => {
                taken();
                return new Promise(() => {});
            })
            .catch(() =>
                refused(
                    new Trouble(
                        "already-open",
                        "This login is already open in another tab.",
                        "this browser",
                        "Close the other tab, then reload this one.",
                    ),
                ),
            );
    });
}
