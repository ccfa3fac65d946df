// The call: MatrixRTC membership (who), media keys (whom to trust) and media servers (what), brought together. main.ts makes
// one per room; lobby.ts asks who is there; stage.ts and controls.ts show it; observe.ts exposes it to tests.
//
// What happens at join(), in the order of the code:
//   1. discovery.ts   the homeserver names the media server we publish on
//   2. token.ts       its token service turns an OpenID token into a media server token; a refusal ends here
//   3. MatrixRTC      our membership goes into the room, with a delayed leave that the homeserver sends should we vanish
//   4. sfu.ts         we connect to our media server, and to that of every other member
//   5. keys.ts        in an encrypted room keys are exchanged; frames are encrypted from the first one

import { Track, type LocalVideoTrack, type Room } from "livekit-client";
import { ClientEvent, EventType, RoomEvent, RoomStateEvent, SyncState, type MatrixEvent, type SyncStateData } from "matrix-js-sdk";
import { MatrixRTCSession, MatrixRTCSessionEvent, type CallMembership, type LivekitTransport } from "matrix-js-sdk/lib/matrixrtc/index.js";

import { discoverTransport, serviceUrl } from "./discovery.ts";
import { Trouble, homeserverTrouble, mayNotCall, removedFromRoom } from "./errors.ts";
import { memberIdentity } from "./identity.ts";
import { guardKeys, type KeyTransport } from "./keyguard.ts";
import { MediaKeys } from "./keys.ts";
import type { Media } from "./media.ts";
import { describe, type KeyState, type Member, type Person } from "./people.ts";
import { privacyOf, type Privacy } from "./privacy.ts";
import type { Session } from "./session.ts";
import { Sfu, type SfuListener } from "./sfu.ts";
import { fetchToken } from "./token.ts";

/** The homeserver makes us leave when we have been silent this long; we report every RESTART. As Element Call: ghosts annoy, but a hiccup must pass. */
const DELAYED_LEAVE_MS = 18_000;
const DELAYED_LEAVE_RESTART_MS = 4_000;
/** Leaving must not hang on a dead homeserver: the delayed leave does it then. */
const LEAVE_TIMEOUT_MS = 3_000;
/** A frame that did not decrypt marks its sender this long, or until a new key comes; livekit-client does not report every frame. */
const BROKEN_MS = 15_000;

export type CallState = "lobby" | "joining" | "joined" | "left";

export class Call {
    state: CallState = "lobby";
    /** Why the call ended, or could not begin. */
    trouble: Trouble | undefined;
    /** Does the homeserver answer? If not, nobody's joining or leaving is seen. */
    homeserverAnswers = true;
    /** Senders whose key messages were refused because they were not Olm-encrypted, and how many. */
    readonly refusedKeys = new Map<string, number>();
    readonly self: Member;
    private readonly rtc: MatrixRTCSession;
    private readonly sfus = new Map<string, Sfu>();
    private readonly brokenUntil = new Map<string, number>();
    private ownServiceUrl = "";
    private keys: MediaKeys | undefined;
    private ending: Promise<void> | undefined;

    constructor(
        readonly session: Session,
        readonly media: Media,
        readonly keyTransport: KeyTransport,
        private readonly onChange: () => void,
    ) {
        const { client, room, credentials } = session;
        this.self = {
            identity: memberIdentity(credentials.userId, credentials.deviceId),
            userId: credentials.userId,
            deviceId: credentials.deviceId,
            name: room.getMember(credentials.userId)?.name ?? credentials.userId,
            mine: true,
        };
        const guarded = guardKeys(client, keyTransport, (sender) => {
            this.refusedKeys.set(sender, (this.refusedKeys.get(sender) ?? 0) + 1);
            onChange();
        });
        // One call per room: slot "ROOM" of application "m.call", which is `call_id: ""` in state events.
        this.rtc = new MatrixRTCSession(guarded, room, { application: "m.call", id: "ROOM" });
        this.rtc.on(MatrixRTCSessionEvent.MembershipsChanged, this.membersChanged);
        this.rtc.on(MatrixRTCSessionEvent.MembershipManagerError, (error) => {
            const cause = (error as Error).cause ?? error;
            void this.end(homeserverTrouble(cause, credentials.homeserver, "telling the room that we joined"));
        });
        client.on(RoomStateEvent.Events, this.stateChanged);
        client.on(ClientEvent.Sync, this.syncChanged);
        room.on(RoomEvent.MyMembership, this.roomMembershipChanged);
        addEventListener("pagehide", this.pageHidden);
    }

    async join(): Promise<void> {
        const { client, room, encrypted, credentials } = this.session;
        this.state = "joining";
        this.onChange();
        try {
            if (!room.currentState.maySendStateEvent(EventType.GroupCallMemberPrefix, credentials.userId)) throw mayNotCall(room.name);
            const transport = await discoverTransport(client);
            this.ownServiceUrl = serviceUrl(transport)!;
            const token = await fetchToken(client, this.ownServiceUrl, room.roomId); // a refusal must not leave a membership behind
            if (this.hasLeft()) return;

            if (encrypted) this.keys = new MediaKeys(this.rtc, this.keyArrived);
            // `livekit_alias` is not used any more, but Element Call up to 0.16 ignores members without it.
            const focus: LivekitTransport = { ...transport, livekit_alias: room.roomId };
            this.rtc.joinRTCSession(
                { userId: credentials.userId, deviceId: credentials.deviceId, memberId: this.self.identity },
                [],
                focus,
                {
                    callIntent: "video",
                    manageMediaKeys: encrypted,
                    delayedLeaveEventDelayMs: DELAYED_LEAVE_MS,
                    delayedLeaveEventRestartMs: DELAYED_LEAVE_RESTART_MS,
                },
            );
            await this.sfu(this.ownServiceUrl).connect(token);
            if (this.hasLeft()) return;
            this.state = "joined";
            this.membersChanged();
        } catch (error) {
            await this.end(error as Trouble);
        }
    }

    leave(): Promise<void> {
        return this.end(undefined);
    }

    /** Members by Matrix, without us, oldest first. Also before joining. */
    members(): Member[] {
        return this.rtc.memberships.filter((one) => one.rtcBackendIdentity !== this.self.identity).map((one) => this.memberOf(one));
    }

    /** Everyone in the call, we first, with what they send. */
    people(): Person[] {
        const others = this.rtc.memberships
            .filter((one) => one.rtcBackendIdentity !== this.self.identity)
            .map((one) => {
                // Only on the server that the member names: whoever uses that identity elsewhere is someone else.
                const room = this.sfus.get(this.serviceUrlOf(one) ?? "")?.room;
                const participant = room?.remoteParticipants.get(one.rtcBackendIdentity);
                return describe(this.memberOf(one), participant, this.keyState(one.rtcBackendIdentity));
            });
        return [this.myself(), ...others];
    }

    /** We see ourselves as soon as the camera runs, not only when it is published. */
    private myself(): Person {
        const { media, self } = this;
        const { state, room } = this.sfus.get(this.ownServiceUrl) ?? {};
        const online = state === "connected" || state === "reconnecting";
        return {
            ...describe(self, online ? room?.localParticipant : undefined, this.keyState(self.identity)),
            microphone: media.isOn("microphone") ? "on" : media.microphone ? "muted" : "none",
            camera: media.isOn("camera") ? media.camera : undefined,
            screen: media.screen.find((track): track is LocalVideoTrack => track.source === Track.Source.ScreenShare),
        };
    }

    privacy(): Privacy {
        const ownKey = this.keys?.has(this.self.identity) ?? false;
        return privacyOf(
            this.session.encrypted,
            this.keyTransport,
            ownKey,
            this.people().map((one) => one.protection),
        );
    }

    /** Every media server in use, the own one first. */
    servers(): { serviceUrl: string; own: boolean; state: Sfu["state"]; trouble: Trouble | undefined; room: Room | undefined }[] {
        return [...this.sfus.values()].map(({ serviceUrl, state, trouble, room }) => ({
            serviceUrl,
            own: serviceUrl === this.ownServiceUrl,
            state,
            trouble,
            room,
        }));
    }

    /** Resolves when everything is taken down; before that a rejoin would be undone by our own leaving. */
    private end(trouble: Trouble | undefined): Promise<void> {
        this.ending ??= this.takeDown(trouble);
        return this.ending;
    }

    private async takeDown(trouble: Trouble | undefined): Promise<void> {
        this.state = "left";
        this.trouble = trouble;
        this.onChange();
        const { client, room } = this.session;
        removeEventListener("pagehide", this.pageHidden);
        client.off(RoomStateEvent.Events, this.stateChanged);
        client.off(ClientEvent.Sync, this.syncChanged);
        room.off(RoomEvent.MyMembership, this.roomMembershipChanged);
        this.media.stop();
        await Promise.all([this.rtc.leaveRoomSession(LEAVE_TIMEOUT_MS), ...[...this.sfus.values()].map((sfu) => sfu.close())]);
        await this.rtc.stop();
        this.keys?.stop();
    }

    private hasLeft(): boolean {
        return this.state === "left";
    }

    /** Connects to servers that members name and we do not know yet; drops those that nobody names any more. */
    private readonly membersChanged = (): void => {
        if (this.state === "joined") {
            const named = new Set(this.rtc.memberships.map((one) => this.serviceUrlOf(one)).filter((url) => url !== undefined));
            for (const url of named) if (!this.sfus.has(url)) void this.sfu(url).keepConnecting();
            for (const [url, sfu] of this.sfus) {
                if (url === this.ownServiceUrl || named.has(url)) continue;
                this.sfus.delete(url);
                void sfu.close();
            }
        }
        this.onChange();
    };

    private sfu(url: string): Sfu {
        const { client, room } = this.session;
        const own = url === this.ownServiceUrl;
        const listener: SfuListener = {
            changed: () => {
                // Told to go by our own media server: that is the end. Another server's loss costs us its members only.
                const { state, trouble } = this.sfus.get(url) ?? {};
                if (own && state === "closed" && trouble) void this.end(trouble);
                this.onChange();
            },
            connected: (livekit) => {
                if (own) void this.media.publishTo(livekit);
            },
            decryptionFailed: (identity) => {
                // Without a key nothing can be wrong with it; and our own frames are not decrypted here.
                if (!identity || identity === this.self.identity || !this.keys?.has(identity)) return;
                this.brokenUntil.set(identity, Date.now() + BROKEN_MS);
                setTimeout(this.onChange, BROKEN_MS + 1);
                this.onChange();
            },
        };
        const sfu = new Sfu(url, () => fetchToken(client, url, room.roomId), this.keys, listener);
        this.sfus.set(url, sfu);
        return sfu;
    }

    /** Where a member publishes. Members with `focus_selection: oldest_membership` use the oldest member's server. */
    private serviceUrlOf(membership: CallMembership): string | undefined {
        return serviceUrl(membership.getTransport(this.rtc.memberships[0]!));
    }

    private memberOf(membership: CallMembership): Member {
        const { userId, deviceId, rtcBackendIdentity: identity } = membership;
        return { identity, userId, deviceId, name: this.session.room.getMember(userId)?.name ?? userId, mine: false };
    }

    private keyState(identity: string): KeyState {
        if (!this.keys) return undefined;
        return { has: this.keys.has(identity), broken: (this.brokenUntil.get(identity) ?? 0) > Date.now() };
    }

    /** matrix-js-sdk's own manager tells its own sessions; ours, with the guarded client, we tell ourselves. */
    private readonly stateChanged = (event: MatrixEvent): void => {
        if (event.getType() === EventType.GroupCallMemberPrefix && event.getRoomId() === this.session.room.roomId)
            void this.rtc.ensureRecalculateSessionMembers();
    };

    private readonly keyArrived = (identity: string): void => {
        this.brokenUntil.delete(identity);
        this.onChange();
    };

    private readonly roomMembershipChanged = (room: { name: string }, membership: string): void => {
        if (membership !== "join") void this.end(removedFromRoom(room.name));
    };

    private readonly syncChanged = (state: SyncState, _before: SyncState | null, data?: SyncStateData): void => {
        const { homeserver } = this.session.credentials;
        if (state === SyncState.Error && data?.error && "errcode" in data.error && data.error.errcode === "M_UNKNOWN_TOKEN")
            void this.end(homeserverTrouble(data.error, homeserver, "syncing"));
        this.homeserverAnswers = state !== SyncState.Error && state !== SyncState.Reconnecting;
        this.onChange();
    };

    /** The tab closes: the delayed leave, now. A crashed browser cannot, so the homeserver does it after DELAYED_LEAVE_MS. */
    private readonly pageHidden = (): void => {
        const { homeserver, accessToken } = this.session.credentials;
        const id = this.rtc.delayId;
        if (!id) return;
        void fetch(`${homeserver}/_matrix/client/unstable/org.matrix.msc4140/delayed_events/${encodeURIComponent(id)}/send`, {
            method: "POST",
            keepalive: true,
            headers: { Authorization: `Bearer ${accessToken}`, "Content-Type": "application/json" },
            body: "{}",
        });
    };
}
