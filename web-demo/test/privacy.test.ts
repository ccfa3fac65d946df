import assert from "node:assert/strict";
import { test } from "node:test";

import { describe, type Member } from "../src/people.ts";
import { privacyOf } from "../src/privacy.ts";

test("“End-to-end encrypted” is said only when all of it is", () => {
    const level = (...args: Parameters<typeof privacyOf>): string => privacyOf(...args).level;
    assert.equal(level(true, "olm", true, ["encrypted", "none-yet", "encrypted"]), "end-to-end");
    assert.equal(level(true, "olm", false, ["none-yet"]), "pending");
    assert.equal(level(true, "olm", true, ["encrypted", "no-key"]), "pending");
    assert.equal(level(true, "olm", true, ["encrypted", "broken"]), "pending");
    assert.equal(level(true, "olm", true, ["encrypted", "clear"]), "partial");
    assert.equal(level(true, "clear", true, ["encrypted", "encrypted"]), "test");
    assert.equal(level(false, "olm", false, ["transport"]), "transport");
});

const bob: Member = { identity: "@bob:x:D", userId: "@bob:x", deviceId: "D", name: "Bob", mine: false };

/** As much of a LiveKit participant as people.ts reads. */
function participant(...publications: object[]): Parameters<typeof describe>[1] {
    return {
        trackPublications: new Map(publications.map((one, sid) => [sid, one])),
        isSpeaking: false,
        connectionQuality: "good",
    } as never;
}
const video = { source: "camera", isMuted: false, isEncrypted: true, track: { kind: "video" } };
const sound = { source: "microphone", isMuted: false, isEncrypted: true, track: { kind: "audio" } };

test("encrypted media with a key are shown and played", () => {
    const person = describe(bob, participant(video, sound), { has: true, broken: false });
    assert.equal(person.protection, "encrypted");
    assert.equal(person.camera, video.track);
    assert.deepEqual(person.sounds, [sound.track]);
});

test("in an encrypted call, clear media and media without a key are neither shown nor played", () => {
    for (const [publication, key, protection] of [
        [{ ...sound, isEncrypted: false }, { has: true, broken: false }, "clear"],
        [sound, { has: false, broken: false }, "no-key"],
        [sound, undefined, "no-key"], // encrypted media in a call that is not: nothing could decrypt them
    ] as const) {
        const person = describe(bob, participant(publication, publication === sound ? video : { ...video, isEncrypted: false }), key);
        assert.equal(person.protection, protection);
        assert.equal(person.camera, undefined);
        assert.deepEqual(person.sounds, []);
        assert.equal(person.microphone, "on"); // but the truth about the microphone is told
    }
});

test("one's own sound is never played, one's own picture always shown", () => {
    const me = describe({ ...bob, mine: true }, participant(video, sound), { has: false, broken: false });
    assert.equal(me.camera, video.track);
    assert.deepEqual(me.sounds, []);
});

test("a member who is not on the media server is not connected", () => {
    const person = describe(bob, undefined, { has: true, broken: false });
    assert.equal(person.connected, false);
    assert.equal(person.microphone, "none");
    assert.equal(person.protection, "none-yet");
});
