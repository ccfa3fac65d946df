// Whose media keys we believe. Called by call.ts, which gives MatrixRTCSession the guarded client.

import { ClientEvent, MatrixEvent, type MatrixClient } from "matrix-js-sdk";
import type { ReceivedToDeviceMessage } from "matrix-js-sdk/lib/sync-accumulator.js";

const KEY_MESSAGE = "io.element.call.encryption_keys";

/** How key messages travel. "olm" is the only safe one; "clear" lets the homeserver read and forge keys. */
export type KeyTransport = "olm" | "clear";

/**
 * The MatrixClient as MatrixRTCSession may see it. The session itself takes a key from any to-device message, encrypted or
 * not, and believes the device it claims to come from; so whoever runs the homeserver could plant keys. Here it is given
 * only messages that came Olm-encrypted from the very device they name. `onRefused` hears the sender of any other.
 *
 * With "clear" keys are sent and accepted unencrypted, for test hosts that have no Olm; the page then says so.
 */
export function guardKeys(client: MatrixClient, transport: KeyTransport, onRefused: (sender: string) => void): MatrixClient {
    type Listener = (event: MatrixEvent) => void;
    const guards = new Map<Listener, (received: ReceivedToDeviceMessage) => void>();

    const own: Record<string, unknown> = {
        on(name: string, listener: Listener) {
            if (name !== ClientEvent.ToDeviceEvent) return client.on(name as never, listener as never);
            const guard = (received: ReceivedToDeviceMessage): void => {
                if (received.message.type !== KEY_MESSAGE) return;
                if (transport === "clear" || isGenuine(received)) listener(new MatrixEvent(received.message));
                else onRefused(received.message.sender);
            };
            guards.set(listener, guard);
            return client.on(ClientEvent.ReceivedToDeviceMessage, guard);
        },
        off(name: string, listener: Listener) {
            const guard = guards.get(listener);
            if (name !== ClientEvent.ToDeviceEvent || !guard) return client.off(name as never, listener as never);
            guards.delete(listener);
            return client.off(ClientEvent.ReceivedToDeviceMessage, guard);
        },
    };
    if (transport === "clear") {
        own.encryptAndSendToDevice = (eventType: string, devices: { userId: string; deviceId: string }[], payload: object) =>
            client.queueToDevice({ eventType, batch: devices.map((device) => ({ ...device, payload })) });
    }
    return new Proxy(client, {
        get(target, name) {
            const value = own[name as string] ?? Reflect.get(target, name, target);
            return typeof value === "function" ? value.bind(target) : value;
        },
    });
}

/** Was this key message encrypted by the device whose key it says it carries? */
export function isGenuine({ message, encryptionInfo }: ReceivedToDeviceMessage): boolean {
    return (
        encryptionInfo !== null &&
        encryptionInfo.sender === message.sender &&
        encryptionInfo.senderDevice !== undefined &&
        encryptionInfo.senderDevice === message.content?.member?.claimed_device_id
    );
}
