// Which media server do I publish on? The homeserver says so (MSC4143). Called by call.ts before joining.

import type { MatrixClient } from "matrix-js-sdk";
import { isLivekitTransportConfig, type LivekitTransportConfig } from "matrix-js-sdk/lib/matrixrtc/index.js";

import { noTransport } from "./errors.ts";

/** A server that hangs must not hang the lobby. */
const WELL_KNOWN_TIMEOUT_MS = 5000;

/** The first LiveKit transport of the homeserver: its own endpoint first, then the well-known document. */
export async function discoverTransport(client: MatrixClient): Promise<LivekitTransportConfig> {
    const transport = (await fromEndpoint(client)) ?? (await fromWellKnown(client));
    if (!transport) throw noTransport(client.getDomain() ?? client.baseUrl);
    return { type: "livekit", livekit_service_url: serviceUrl(transport)! };
}

/** Two members name the same server if these are equal. */
export function serviceUrl(transport: { type: string } | undefined): string | undefined {
    if (!transport || !isLivekitTransportConfig(transport)) return undefined;
    return transport.livekit_service_url.replace(/\/+$/, "");
}

/** `GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports`; homeservers that have it, but none configured, answer `{}`. */
async function fromEndpoint(client: MatrixClient): Promise<LivekitTransportConfig | undefined> {
    try {
        return (await client._unstable_getRTCTransports())?.find(isLivekitTransportConfig);
    } catch {
        return undefined; // not supported: the well-known document remains
    }
}

/** `org.matrix.msc4143.rtc_foci` of the server name, else of the homeserver itself. */
async function fromWellKnown(client: MatrixClient): Promise<LivekitTransportConfig | undefined> {
    for (const base of [`https://${client.getDomain()}`, client.baseUrl]) {
        try {
            const answer = await fetch(`${base}/.well-known/matrix/client`, { signal: AbortSignal.timeout(WELL_KNOWN_TIMEOUT_MS) });
            const foci: unknown = (await answer.json())["org.matrix.msc4143.rtc_foci"];
            const found = Array.isArray(foci) ? foci.find(isLivekitTransportConfig) : undefined;
            if (found) return found;
        } catch {
            continue; // no such host, no such document, not JSON
        }
    }
    return undefined;
}
