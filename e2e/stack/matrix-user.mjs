// A logged-in user of the homeserver, as far as the tests and the demo act for it: rooms, membership, OpenID tokens.

export class MatrixUser {
  constructor({ homeserver, userId, deviceId, token, password, displayName }) {
    Object.assign(this, { homeserver, userId, deviceId, token, password, displayName });
  }

  /** A request as this user; `api` is the part of the path before `path`. */
  async request(method, path, body, api = "v3") {
    const response = await fetch(`${this.homeserver}/_matrix/client/${api}${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}` },
      body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method} ${path} as ${this.userId}: ${response.status} ${JSON.stringify(answer)}`);
    return answer;
  }

  /** A room in which everybody may call. `members` are invited and join. Returns the room id. */
  async createRoom({ name, encrypted = false, members = [] }) {
    const initialState = encrypted ? [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }] : [];
    const { room_id: roomId } = await this.request("POST", "/createRoom", {
      name,
      preset: "private_chat",
      invite: members.map((user) => user.userId),
      initial_state: initialState,
      // Membership of a call is a state event, and state is for moderators unless the room says otherwise (MSC3401).
      power_level_content_override: { events: { "org.matrix.msc3401.call.member": 0 } },
    });
    for (const user of members) await user.join(roomId);
    return roomId;
  }

  /** `via`: a server in the room, for users of servers that are not in it yet. */
  join(roomId, via) {
    return this.request("POST", `/join/${encodeURIComponent(roomId)}${via ? `?server_name=${via}&via=${via}` : ""}`, {});
  }

  leave(roomId) {
    return this.request("POST", `/rooms/${encodeURIComponent(roomId)}/leave`, {});
  }

  /** What a moderator does to another user: `"invite"`, `"kick"`, `"ban"` or `"unban"`. */
  moderate(roomId, action, { userId }) {
    return this.request("POST", `/rooms/${encodeURIComponent(roomId)}/${action}`, { user_id: userId });
  }

  setState(roomId, type, stateKey, content) {
    return this.request("PUT", `/rooms/${encodeURIComponent(roomId)}/state/${type}/${encodeURIComponent(stateKey)}`, content);
  }

  /** An OpenID token: what the token service takes as proof of who asks. */
  openIdToken() {
    return this.request("POST", `/user/${encodeURIComponent(this.userId)}/openid/request_token`, {});
  }

  /** Membership events of the room's call that are not empty, that is: who the room says is in the call. */
  async callMembers(roomId) {
    const state = await this.request("GET", `/rooms/${encodeURIComponent(roomId)}/state`);
    return state.filter((event) => event.type === "org.matrix.msc3401.call.member" && Object.keys(event.content).length > 0);
  }

  /** This user's events that Synapse sends later unless somebody restarts or cancels them (MSC4140). */
  async delayedEvents() {
    return (await this.request("GET", "/delayed_events", undefined, "unstable/org.matrix.msc4140")).delayed_events;
  }

  /** Schedules the end of the membership `stateKey` of a call for in `delayMs`; resolves with the delay's id. */
  async scheduleLeave(roomId, stateKey, delayMs) {
    const path = `/rooms/${encodeURIComponent(roomId)}/state/org.matrix.msc3401.call.member/${encodeURIComponent(stateKey)}`;
    return (await this.request("PUT", `${path}?org.matrix.msc4140.delay=${delayMs}`, {})).delay_id;
  }
}
