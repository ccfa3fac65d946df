// The media keys of a call: from matrix-js-sdk, which exchanges them, to livekit-client, which encrypts. Called by call.ts.
//
// Each member has its own key. matrix-js-sdk's MatrixRTCSession makes ours, sends it to every other member's device as
// to-device `io.element.call.encryption_keys`, renews it when someone leaves, and tells us the keys of the others.
// livekit-client encrypts and decrypts frames with them in a worker. The media server never has a key.

import { BaseKeyProvider, createKeyMaterialFromBuffer } from "livekit-client";
import { MatrixRTCSessionEvent, type MatrixRTCSession } from "matrix-js-sdk/lib/matrixrtc/index.js";

/**
 * Hands the keys of a MatrixRTC session to livekit-client. The numbers are Element Call's, and all members must agree:
 * 256 key slots, because the key index on the wire is one byte; a ratchet window of 10.
 */
export class MediaKeys extends BaseKeyProvider {
    private readonly known = new Set<string>();

    constructor(
        private readonly rtc: MatrixRTCSession,
        private readonly onKey: (identity: string) => void,
    ) {
        super({ keyringSize: 256, ratchetWindowSize: 10 });
        rtc.on(MatrixRTCSessionEvent.EncryptionKeyChanged, this.accept);
        rtc.reemitEncryptionKeys();
    }

    /** Is there a key for this participant? */
    has(identity: string): boolean {
        return this.known.has(identity);
    }

    stop(): void {
        this.rtc.off(MatrixRTCSessionEvent.EncryptionKeyChanged, this.accept);
    }

    private readonly accept = async (key: Uint8Array<ArrayBuffer>, index: number, _member: unknown, identity: string): Promise<void> => {
        // The 16 random bytes are not the AES key: livekit-client derives it with HKDF.
        this.onSetEncryptionKey(await createKeyMaterialFromBuffer(key.slice().buffer), identity, index);
        this.known.add(identity);
        this.onKey(identity);
    };
}
