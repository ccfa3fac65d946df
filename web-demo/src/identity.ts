// Who is who on the media server. A caller must find the LiveKit participant that belongs to a Matrix call member, so both
// sides derive the same identity. Called by token.ts and call.ts. Pure.

/**
 * LiveKit identity of a member whose membership is a state event (`org.matrix.msc3401.call.member`), as the token
 * service's /sfu/get puts it into the token: the plain `@user:server:DEVICE`.
 * (Members with sticky membership have a hash; matrix-js-sdk computes either as `membership.rtcBackendIdentity`.)
 */
export function memberIdentity(userId: string, deviceId: string): string {
    return `${userId}:${deviceId}`;
}

export interface TokenClaims {
    /** LiveKit participant identity. */
    identity: string;
    /** LiveKit room name: a hash of room id and slot, chosen by the token service. */
    room: string;
}

/** Reads (does not verify: that is the media server's part) a LiveKit access token. Throws if it is not one. */
export function readClaims(jwt: string): TokenClaims {
    const payload = jwt.split(".")[1] ?? "";
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown; video?: { room?: unknown } };
    if (typeof claims.sub !== "string" || typeof claims.video?.room !== "string") throw new Error("sub or video.room is missing");
    return { identity: claims.sub, room: claims.video.room };
}
