// Asks Parlour's token service for the way into a call, as clients do: with an OpenID token as proof of who asks.
// Source: MSC4195 in its two deployed forms.

async function post(url, body) {
  const response = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
}

/** `POST /sfu/get`: the LiveKit identity is `user:device`. */
export function requestSfu(parlourUrl, { room, device, openIdToken }) {
  return post(`${parlourUrl}/sfu/get`, { room, device_id: device, openid_token: openIdToken });
}

/** `POST /get_token`: the LiveKit identity is a hash of user, device and member id. */
export function requestToken(parlourUrl, { room, slot = "m.call#ROOM", user, device, member, openIdToken }) {
  return post(`${parlourUrl}/get_token`, {
    room_id: room,
    slot_id: slot,
    openid_token: openIdToken,
    member: { id: member, claimed_user_id: user, claimed_device_id: device },
  });
}

/** Where to connect and with which token: `{url, jwt}`. */
export async function wayIn(parlourUrl, user, room, device = user.deviceId) {
  const { status, body } = await requestSfu(parlourUrl, { room, device, openIdToken: await user.openIdToken() });
  if (status !== 200) throw new Error(`/sfu/get for ${user.userId}: ${status} ${JSON.stringify(body)}`);
  return body;
}
