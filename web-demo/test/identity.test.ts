import assert from "node:assert/strict";
import { test } from "node:test";

import { memberIdentity, readClaims } from "../src/identity.ts";

const jwt = (claims: object): string =>
    `${Buffer.from('{"alg":"HS256"}').toString("base64url")}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;

test("the identity of a state-event member is user and device in clear", () => {
    assert.equal(memberIdentity("@alice:example.org", "DEVICE123"), "@alice:example.org:DEVICE123");
});

test("claims are read, with any of base64url's characters", () => {
    const room = "TK4o8wNCXi5t5936bOvIzE/X3XFc7cgp3jGRDqK0j5E";
    for (const user of ["@alice:example.org", "@ü~~??>>:example.org"]) {
        assert.deepEqual(readClaims(jwt({ sub: `${user}:DEV`, video: { room, roomJoin: true } })), { identity: `${user}:DEV`, room });
    }
});

test("what is not a media token is refused", () => {
    for (const wrong of ["", "a.b.c", "no dots", jwt({}), jwt({ sub: "x" }), jwt({ sub: 1, video: { room: "r" } })])
        assert.throws(() => readClaims(wrong));
});
