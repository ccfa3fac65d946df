// Asks for the way into a call, as clients do: Parlour's token service with an OpenID token as proof of who asks, or the
// homeserver, which passes it on. Source: MSC4195 in its three deployed forms.

/** The slot of a room's one call. */
const SLOT = "m.call#ROOM";

async function post(url, body, headers) {
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });
  return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
}

/** `POST /sfu/get`: the LiveKit identity is `user:device`. */
export function requestSfu(parlourUrl, { room, device, openIdToken, ...delay }) {
  return post(`${parlourUrl}/sfu/get`, { room, device_id: device, openid_token: openIdToken, ...delay });
}

/** `POST /get_token`: the LiveKit identity is a hash of user, device and member id. */
export function requestToken(parlourUrl, { room, slot = SLOT, user, device, member, openIdToken, ...delay }) {
  return post(`${parlourUrl}/get_token`, {
    room_id: room,
    slot_id: slot,
    openid_token: openIdToken,
    member: { id: member, claimed_user_id: user, claimed_device_id: device },
    ...delay,
  });
}

/**
 * `get_token` of the homeserver, which knows who asks: the LiveKit identity is a hash of user and member id.
 * `server`: the one whose Parlour at `url` is meant, if it is not the user's own.
 */
export function requestThroughHomeserver(user, { room, slot = SLOT, member, url, server }) {
  return postToHomeserver(user, "get_token", { server_name: server, url, room_id: room, slot_id: slot, member_id: member });
}

/** `delegate_delayed_leave` of the homeserver: from now on Parlour sends that delayed event when the participant is gone. */
export function delegateThroughHomeserver(user, { room, slot = SLOT, member, url, delayId }) {
  return postToHomeserver(user, "delegate_delayed_leave", { url, room_id: room, slot_id: slot, member_id: member, delay_id: delayId });
}

function postToHomeserver({ homeserver, token }, request, body) {
  return post(`${homeserver}/_matrix/client/unstable/io.element.msc4195/rtc/livekit/${request}`, body, { Authorization: `Bearer ${token}` });
}

/** Where to connect and with which token: `{url, jwt}`. */
export async function wayIn(parlourUrl, user, room, device = user.deviceId) {
  const { status, body } = await requestSfu(parlourUrl, { room, device, openIdToken: await user.openIdToken() });
  if (status !== 200) throw new Error(`/sfu/get for ${user.userId}: ${status} ${JSON.stringify(body)}`);
  return body;
}
