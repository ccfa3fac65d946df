// Who is in the call and what they send: Matrix membership says who, the media server says what. Called by call.ts. Pure.

import type { AudioTrack, Participant, TrackPublication, VideoTrack } from "livekit-client";

import type { Protection } from "./privacy.ts";

export interface Member {
    /** The participant's identity on the media server. */
    identity: string;
    userId: string;
    deviceId: string;
    /** Display name in the room. */
    name: string;
    mine: boolean;
}

export interface Person extends Member {
    /** Is this member connected to the media server? If not, they are joining, or their connection broke. */
    connected: boolean;
    speaking: boolean;
    microphone: "on" | "muted" | "none";
    camera: VideoTrack | undefined;
    screen: VideoTrack | undefined;
    /** What to play: microphone and screen sound. Never one's own. */
    sounds: AudioTrack[];
    protection: Protection;
    quality: string;
}

/** What this device knows about the keys of one participant. `undefined`: the call is not end-to-end encrypted. */
export type KeyState = { has: boolean; broken: boolean } | undefined;

/** LiveKit's names for what a track shows (`Track.Source`), spelled out so that this file needs no SDK to run. */
const CAMERA = "camera";
const MICROPHONE = "microphone";
const SCREEN = "screen_share";
const SCREEN_SOUND = "screen_share_audio";

/**
 * What may be shown and played. Not "clear": in an encrypted room such media may come from anyone on the way. Not "no-key":
 * frames that were never decrypted sound like a burst of noise.
 */
const PLAYABLE = new Set<Protection>(["transport", "encrypted", "broken"]);

export function describe(member: Member, participant: Participant | undefined, key: KeyState): Person {
    const publications = participant ? [...participant.trackPublications.values()] : [];
    const protection = protectionOf(publications, key);
    const trusted = member.mine || PLAYABLE.has(protection) ? publications : [];
    const track = (source: string): TrackPublication["track"] => trusted.find((one) => one.source === source && !one.isMuted)?.track;
    const microphone = publications.find((one) => one.source === MICROPHONE);
    return {
        ...member,
        connected: participant !== undefined,
        speaking: participant?.isSpeaking ?? false,
        microphone: microphone === undefined ? "none" : microphone.isMuted ? "muted" : "on",
        camera: track(CAMERA) as VideoTrack | undefined,
        screen: track(SCREEN) as VideoTrack | undefined,
        sounds: member.mine ? [] : ([track(MICROPHONE), track(SCREEN_SOUND)].filter((one) => one !== undefined) as AudioTrack[]),
        protection,
        quality: participant?.connectionQuality ?? "unknown",
    };
}

function protectionOf(publications: TrackPublication[], key: KeyState): Protection {
    if (publications.length === 0) return "none-yet";
    if (key === undefined) return publications.some((one) => one.isEncrypted) ? "no-key" : "transport";
    if (publications.some((one) => !one.isEncrypted)) return "clear";
    if (!key.has) return "no-key";
    return key.broken ? "broken" : "encrypted";
}
