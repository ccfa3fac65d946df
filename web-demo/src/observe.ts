// window.parlour: what tests (and the curious) can read. Documented in README.md. Called by main.ts.

import { RemoteAudioTrack, RemoteVideoTrack } from "livekit-client";

import type { Call } from "./call.ts";
import { currentScreen } from "./page.ts";

/** Replaced by each new call. */
let observed: Call | undefined;

export function observe(call: Call): void {
    observed = call;
}

/** The state now, as plain data. */
function state() {
    const call = observed;
    const own = call?.servers().find((one) => one.own);
    return {
        screen: currentScreen(),
        call: call?.state ?? "none",
        connected: call?.state === "joined" && own?.state === "connected",
        connection: own?.state ?? "none",
        homeserverAnswers: call?.homeserverAnswers ?? false,
        trouble: call?.trouble?.code ?? null,
        room: call?.session.room.roomId ?? null,
        identity: call?.self.identity ?? null,
        e2ee: call
            ? {
                  room: call.session.encrypted,
                  keyTransport: call.keyTransport,
                  refusedKeys: Object.fromEntries(call.refusedKeys),
                  ...call.privacy(),
              }
            : null,
        servers: call?.servers().map(({ serviceUrl, own, state }) => ({ serviceUrl, own, state })) ?? [],
        participants:
            (call?.state === "left" ? [] : call?.people())?.map((person) => ({
                identity: person.identity,
                userId: person.userId,
                deviceId: person.deviceId,
                name: person.name,
                mine: person.mine,
                connected: person.connected,
                speaking: person.speaking,
                microphone: person.microphone,
                protection: person.protection,
                camera: shownVideo(person.identity, "camera"),
                screen: shownVideo(person.identity, "screen"),
                sounds: person.sounds.length,
            })) ?? [],
    };
}

/** The picture on the person's tile: its real size and how long it has been playing; null without one. */
function shownVideo(identity: string, kind: string): { width: number; height: number; currentTime: number } | null {
    const video = document.querySelector<HTMLVideoElement>(
        `.tile[data-identity="${CSS.escape(identity)}"][data-kind="${kind}"].picture video`,
    );
    return video ? { width: video.videoWidth, height: video.videoHeight, currentTime: video.currentTime } : null;
}

/** What was really decoded, per identity, from WebRTC statistics. */
async function decoded() {
    const result: Record<string, { framesDecoded: number; audioSamples: number; concealedSamples: number; audioEnergy: number }> = {};
    for (const person of observed?.people() ?? []) {
        if (person.mine) continue;
        const sum = (result[person.identity] = { framesDecoded: 0, audioSamples: 0, concealedSamples: 0, audioEnergy: 0 });
        for (const track of [person.camera, person.screen, ...person.sounds]) {
            if (!(track instanceof RemoteVideoTrack || track instanceof RemoteAudioTrack)) continue;
            for (const stat of (await track.getRTCStatsReport())?.values() ?? []) {
                if (stat.type !== "inbound-rtp") continue;
                sum.framesDecoded += stat.framesDecoded ?? 0;
                sum.audioSamples += stat.totalSamplesReceived ?? 0;
                sum.concealedSamples += stat.concealedSamples ?? 0;
                sum.audioEnergy += stat.totalAudioEnergy ?? 0;
            }
        }
    }
    return result;
}

const parlour = Object.freeze({
    get state() {
        return state();
    },
    decoded,
});

declare global {
    interface Window {
        readonly parlour: typeof parlour;
    }
}

Object.defineProperty(window, "parlour", { value: parlour });
