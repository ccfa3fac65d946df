import assert from "node:assert/strict";
import { test } from "node:test";

import {
    deviceTrouble,
    disconnectTrouble,
    homeserverTrouble,
    joinRoomTrouble,
    loginTrouble,
    mayNotCall,
    mediaTrouble,
    noTransport,
    publishTrouble,
    removedFromRoom,
    tokenTrouble,
    unknownTrouble,
    type Trouble,
} from "../src/errors.ts";

const HS = "https://matrix.example.org";
const RTC = "https://rtc.example.org";

const named = (name: string): Error => Object.assign(new Error("x"), { name });

const cases: [string, Trouble][] = [
    ["homeserver-unreachable", homeserverTrouble(new TypeError("Failed to fetch"), HS, "logging in")],
    ["session-ended", homeserverTrouble({ errcode: "M_UNKNOWN_TOKEN", httpStatus: 401 }, HS, "x")],
    ["rate-limited", homeserverTrouble({ errcode: "M_LIMIT_EXCEEDED", httpStatus: 429 }, HS, "x")],
    ["homeserver-refused", homeserverTrouble({ errcode: "M_FORBIDDEN", httpStatus: 403, data: { error: "no" } }, HS, "x")],
    ["login-refused", loginTrouble({ errcode: "M_FORBIDDEN", httpStatus: 403 }, HS)],
    ["not-in-room", joinRoomTrouble({ errcode: "M_FORBIDDEN", httpStatus: 403 }, "!r:x", HS)],
    ["may-not-call", mayNotCall("Team")],
    ["no-transport", noTransport("example.org")],
    ["token-unreachable", tokenTrouble(RTC)],
    ["token-refused", tokenTrouble(RTC, 401, { errcode: "M_UNAUTHORIZED", error: "The request could not be authorised." })],
    ["token-refused", tokenTrouble(RTC, 403)],
    ["token-refused", tokenTrouble(RTC, 404)],
    ["rate-limited", tokenTrouble(RTC, 429)],
    ["token-refused", tokenTrouble(RTC, 500)],
    ["media-full", mediaTrouble({ reasonName: "WebSocket", status: 503 }, "wss://rtc")],
    ["media-refused", mediaTrouble({ reasonName: "NotAllowed", status: 401 }, "wss://rtc")],
    ["media-blocked", mediaTrouble({ reasonName: "InternalError", message: "could not establish pc connection" }, "wss://rtc")],
    ["media-unreachable", mediaTrouble({ reasonName: "ServerUnreachable" }, "wss://rtc")],
    ["replaced", disconnectTrouble("DUPLICATE_IDENTITY", "wss://rtc")!],
    ["removed", disconnectTrouble("PARTICIPANT_REMOVED", "wss://rtc")!],
    ["removed", removedFromRoom("Team")],
    ["may-not-publish", publishTrouble(new Error("failed to publish track, insufficient permissions"))],
    ["device-denied", deviceTrouble(named("NotAllowedError"), "camera")],
    ["device-missing", deviceTrouble(named("NotFoundError"), "microphone")],
    ["device-busy", deviceTrouble(named("NotReadableError"), "camera")],
    ["unknown", unknownTrouble(new Error("boom"))],
];

test("every failure says what, where and what to do", () => {
    for (const [code, trouble] of cases) {
        assert.equal(trouble.code, code);
        for (const text of [trouble.what, trouble.where, trouble.todo])
            assert.ok(text.length > 0 && !/undefined|\[object/.test(text), `${code}: “${text}”`);
        assert.match(trouble.what, /[.:!”]$|[a-z]$/, code);
    }
});

test("the service's own words and the address are passed on", () => {
    const trouble = tokenTrouble(RTC, 403, { error: "not joined" });
    assert.match(trouble.what, /not joined/);
    assert.equal(trouble.where, RTC);
});

test("a trouble is not wrapped twice, a broken connection is no end", () => {
    const trouble = noTransport("x");
    assert.equal(mediaTrouble(trouble, "wss://rtc"), trouble);
    assert.equal(unknownTrouble(trouble), trouble);
    assert.equal(disconnectTrouble("SIGNAL_CLOSE", "wss://rtc"), undefined);
    assert.equal(disconnectTrouble(undefined, "wss://rtc"), undefined);
});
