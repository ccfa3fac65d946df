import assert from "node:assert/strict";
import { test } from "node:test";

import { parseLink } from "../src/link.ts";

test("a link of pairs", () => {
    const link = parseLink("#hs=http%3A%2F%2F127.0.0.1%3A8008&room=!r%3Ahs.test&user=@a:hs.test&token=syt_a+b/c%3D&device=DEV");
    assert.deepEqual(link, {
        homeserver: "http://127.0.0.1:8008",
        room: "!r:hs.test",
        user: "@a:hs.test",
        token: "syt_a+b/c=", // a plus stays a plus
        device: "DEV",
        skipLobby: false,
        clearKeys: false,
    });
});

test("a link of JSON, plain and percent-encoded", () => {
    const json = '{"hs":"https://m.example.org","room":"#team:example.org","token":"100% + x","lobby":"skip"}';
    for (const fragment of [`#${json}`, `#${encodeURIComponent(json)}`]) {
        const link = parseLink(fragment);
        assert.equal(link.room, "#team:example.org");
        assert.equal(link.token, "100% + x");
        assert.equal(link.skipLobby, true);
        assert.equal(link.clearKeys, false);
    }
});

test("an alias may keep its #, an unknown option changes nothing", () => {
    const link = parseLink("#room=#team:example.org&e2eeTransport=none&lobby=");
    assert.equal(link.room, "#team:example.org");
    assert.equal(link.clearKeys, false);
    assert.equal(link.skipLobby, false);
});

test("clear keys must be asked for by name", () => {
    assert.equal(parseLink("#e2eeTransport=clear").clearKeys, true);
});

test("nonsense is an empty link", () => {
    for (const fragment of ["", "#", "#{not json", "#%E0%A4%A", "#===&&&"]) assert.equal(parseLink(fragment).token, "");
});
