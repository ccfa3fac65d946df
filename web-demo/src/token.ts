// From a Matrix login to a media server token: OpenID token → POST {livekit_service_url}/sfu/get. Called by sfu.ts at each connect.

import type { MatrixClient } from "matrix-js-sdk";

import { Trouble, homeserverTrouble, tokenTrouble } from "./errors.ts";
import { memberIdentity, readClaims } from "./identity.ts";

export interface MediaToken {
    /** WebSocket URL of the media server. */
    url: string;
    jwt: string;
    /** Our LiveKit identity, and the LiveKit room. */
    identity: string;
    room: string;
}

export async function fetchToken(client: MatrixClient, serviceUrl: string, roomId: string): Promise<MediaToken> {
    // Proves to third parties who we are, and nothing else: they cannot act for us with it.
    const openid = await client.getOpenIdToken().catch((error) => {
        throw homeserverTrouble(error, client.baseUrl, "asking for an OpenID token");
    });

    const deviceId = client.getDeviceId()!;
    const answer = await fetch(`${serviceUrl}/sfu/get`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ room: roomId, openid_token: openid, device_id: deviceId }),
    }).catch((error) => {
        throw tokenTrouble(serviceUrl, undefined, undefined, error);
    });
    const body = await answer.json().catch(() => undefined);
    if (!answer.ok) throw tokenTrouble(serviceUrl, answer.status, body);

    let token: MediaToken;
    try {
        token = { url: String(body.url), jwt: String(body.jwt), ...readClaims(body.jwt) };
    } catch (error) {
        throw new Trouble(
            "token-unreadable",
            "The call server sent something that is not a token.",
            serviceUrl,
            "Tell the administrator.",
            error,
        );
    }
    // The others look for us under this name. If the service gives another, they would wait for our media forever.
    const expected = memberIdentity(client.getUserId()!, deviceId);
    if (token.identity !== expected)
        throw new Trouble(
            "identity-mismatch",
            `The call server calls us “${token.identity}” instead of “${expected}”.`,
            serviceUrl,
            "Tell the administrator: others would not find your picture.",
        );
    return token;
}
