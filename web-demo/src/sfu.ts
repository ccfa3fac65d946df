// One media server: token, connection, reconnection. Members of a call may publish on different servers (each on their own
// homeserver's), so a call has one Sfu per server: the own one to publish and subscribe, the others to subscribe. Called by call.ts.

import { DisconnectReason, Room, RoomEvent, VideoPresets } from "livekit-client";

import { Trouble, disconnectTrouble, mediaTrouble } from "./errors.ts";
import type { MediaKeys } from "./keys.ts";
import type { MediaToken } from "./token.ts";

export type SfuState = "connecting" | "connected" | "reconnecting" | "closed";

/** Pause before the nth new attempt: doubling from 1 s, so that a restarted server is not stormed, to 15 s, which still feels alive. */
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** Anything that can change what the page shows. */
const VISIBLE_EVENTS = [
    RoomEvent.ParticipantConnected,
    RoomEvent.ParticipantDisconnected,
    RoomEvent.TrackPublished,
    RoomEvent.TrackUnpublished,
    RoomEvent.TrackSubscribed,
    RoomEvent.TrackUnsubscribed,
    RoomEvent.TrackMuted,
    RoomEvent.TrackUnmuted,
    RoomEvent.LocalTrackPublished,
    RoomEvent.LocalTrackUnpublished,
    RoomEvent.ActiveSpeakersChanged,
    RoomEvent.ConnectionQualityChanged,
    RoomEvent.AudioPlaybackStatusChanged,
    RoomEvent.ParticipantEncryptionStatusChanged,
] as const;

export interface SfuListener {
    changed(): void;
    /** A fresh room is connected: publish into it. */
    connected(room: Room): void;
    /** A frame of this participant (or an unknown one) did not decrypt. */
    decryptionFailed(identity: string | undefined): void;
}

export class Sfu {
    room: Room | undefined;
    state: SfuState = "connecting";
    /** Why it is not connected. */
    trouble: Trouble | undefined;
    private attempting = false;
    /** Encrypts and decrypts the frames of `room`. */
    private worker: Worker | undefined;

    constructor(
        readonly serviceUrl: string,
        private readonly fetchToken: () => Promise<MediaToken>,
        private readonly keys: MediaKeys | undefined,
        private readonly listener: SfuListener,
    ) {}

    /** Connects once, with this token or a new one; throws a Trouble if that fails. */
    async connect(token?: MediaToken): Promise<void> {
        token ??= await this.fetchToken();
        const room = this.createRoom(token.url);
        this.room = room;
        this.attempting = true;
        try {
            if (this.keys) await room.setE2EEEnabled(true); // before connecting: no frame may ever leave in clear
            await room.connect(token.url, token.jwt);
        } catch (error) {
            throw mediaTrouble(error, token.url);
        } finally {
            this.attempting = false;
        }
        if (this.state === "closed") return void room.disconnect(); // left meanwhile
        this.update("connected");
        this.listener.connected(room);
    }

    /** Tries until it is connected or closed. */
    async keepConnecting(): Promise<void> {
        for (let attempt = 0; this.state !== "closed"; attempt++) {
            try {
                return await this.connect();
            } catch (error) {
                this.trouble = mediaTrouble(error, this.serviceUrl);
                this.listener.changed();
            }
            await new Promise((done) => setTimeout(done, Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt)));
        }
    }

    async close(trouble?: Trouble): Promise<void> {
        this.update("closed", trouble);
        await this.room?.disconnect();
        this.worker?.terminate();
    }

    private createRoom(url: string): Room {
        this.worker?.terminate();
        this.worker = this.keys && new Worker(new URL("e2ee-worker.js", import.meta.url), { type: "module" });
        const room = new Room({
            adaptiveStream: true, // ask for the size that is on screen
            dynacast: true, // send only the layers someone watches
            videoCaptureDefaults: { resolution: VideoPresets.h720.resolution },
            stopLocalTrackOnUnpublish: false, // they are media.ts's, and outlive a lost connection
            e2ee: this.keys && this.worker && { keyProvider: this.keys, worker: this.worker },
        });
        for (const event of VISIBLE_EVENTS) room.on(event, () => this.listener.changed());
        room.on(RoomEvent.EncryptionError, (_error, participant) => this.listener.decryptionFailed(participant?.identity));
        room.on(RoomEvent.Reconnecting, () => this.update("reconnecting"));
        room.on(RoomEvent.SignalReconnecting, () => this.update("reconnecting"));
        room.on(RoomEvent.Reconnected, () => this.update("connected"));
        room.on(RoomEvent.Disconnected, (reason) => {
            if (this.state === "closed" || this.attempting) return; // by us, or connect() reports it
            const final = disconnectTrouble(reason === undefined ? undefined : DisconnectReason[reason], url);
            this.update(final ? "closed" : "reconnecting", final);
            if (!final) void this.keepConnecting(); // livekit-client gave up: start over with a new token
        });
        return room;
    }

    private update(state: SfuState, trouble?: Trouble): void {
        if (this.state === "closed") return;
        this.state = state;
        this.trouble = trouble;
        this.listener.changed();
    }
}
