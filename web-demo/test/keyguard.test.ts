import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";

import type { MatrixClient, MatrixEvent } from "matrix-js-sdk";

import { guardKeys, type KeyTransport } from "../src/keyguard.ts";

const SENDER = "@bob:example.org";

function received(encryption: { sender?: string; senderDevice?: string } | null, claimed = "BOBDEVICE") {
    return {
        message: {
            type: "io.element.call.encryption_keys",
            sender: SENDER,
            content: { room_id: "!r:x", keys: { index: 0, key: "AAAA" }, member: { id: "x", claimed_device_id: claimed } },
        },
        encryptionInfo: encryption && {
            sender: SENDER,
            senderDevice: "BOBDEVICE",
            senderCurve25519KeyBase64: "c",
            senderVerified: false,
            ...encryption,
        },
    };
}

/** What reaches the session, and whom the guard reported, when the client receives `message`. */
function pass(transport: KeyTransport, message: object): { keys: number; refused: string[] } {
    const client = new EventEmitter();
    const refused: string[] = [];
    let keys = 0;
    const guarded = guardKeys(client as unknown as MatrixClient, transport, (sender) => refused.push(sender));
    const listener = (event: MatrixEvent): void => {
        assert.equal(event.getSender(), SENDER);
        keys++;
    };
    guarded.on("toDeviceEvent" as never, listener as never);
    client.emit("toDeviceEvent", {}); // the unguarded way must lead nowhere
    client.emit("receivedToDeviceMessage", message);
    guarded.off("toDeviceEvent" as never, listener as never);
    client.emit("receivedToDeviceMessage", message);
    return { keys, refused };
}

test("a key from the very device it names, Olm-encrypted, is believed", () => {
    assert.deepEqual(pass("olm", received({})), { keys: 1, refused: [] });
});

test("by default no other key is", () => {
    const forged = [
        received(null),
        received({ sender: "@eve:example.org" }),
        received({ senderDevice: "OTHER" }),
        received({ senderDevice: undefined }),
        received({}, "OTHER"),
    ];
    for (const message of forged) assert.deepEqual(pass("olm", message), { keys: 0, refused: [SENDER] });
});

test("the test mode believes clear ones", () => {
    assert.deepEqual(pass("clear", received(null)), { keys: 1, refused: [] });
});

test("the test mode sends in clear, the default through Olm", () => {
    const calls: string[] = [];
    const client = Object.assign(new EventEmitter(), {
        encryptAndSendToDevice: () => calls.push("olm"),
        queueToDevice: () => calls.push("clear"),
    });
    for (const transport of ["olm", "clear"] as const) {
        void guardKeys(client as unknown as MatrixClient, transport, () => {}).encryptAndSendToDevice(
            "t",
            [{ userId: SENDER, deviceId: "D" }],
            {},
        );
    }
    assert.deepEqual(calls, ["olm", "clear"]);
});

test("messages that are no keys do not concern the session", () => {
    assert.deepEqual(pass("olm", { message: { type: "m.dummy", sender: SENDER, content: {} }, encryptionInfo: null }), {
        keys: 0,
        refused: [],
    });
});
