// A Matrix client whose only room view is a call: it hosts the unmodified Element Call as a widget, the way Element Web
// does. Bundled and served by stack/page-server.mjs; opened by tests and by the demo's third link.
//
// The fragment of the page's address has the form of a query:
//   homeserver, userId, deviceId, token, roomId   a logged-in user who is joined to the room
//   mode                                          how Element Call announces membership; see stack/page-server.mjs
// The page says where it stands in `window.host`: {log: string[], joined: boolean, error?: string}.
import { ClientWidgetApi, MatrixWidgetType, OpenIDRequestState, Widget, WidgetDriver } from "matrix-widget-api";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { ClientEvent, createClient, MatrixError, MatrixEventEvent, RoomStateEvent, SyncState } from "matrix-js-sdk";

logger.setLevel("warn"); // the SDK tells every request otherwise
const options = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const { roomId } = options;
const host = (window.host = { log: [], joined: false });
const note = (...words) => host.log.push(`${Math.round(performance.now())} ${words.map((word) => (typeof word === "string" ? word : JSON.stringify(word))).join(" ")}`);

/** What Element Call asks of the homeserver, done by the SDK on its behalf. */
class Driver extends WidgetDriver {
  constructor(client) {
    super();
    this.client = client;
  }

  get room() {
    return this.client.getRoom(roomId);
  }

  async validateCapabilities(requested) {
    return requested; // a client asks the user; ours trusts its one widget
  }

  async sendEvent(type, content, stateKey = null) {
    note("send", type, content);
    const { event_id: eventId } =
      stateKey === null ? await this.client.sendEvent(roomId, type, content) : await this.client.sendStateEvent(roomId, type, content, stateKey);
    return { roomId, eventId };
  }

  async sendDelayedEvent(delay, type, content, stateKey = null) {
    note("send in", delay, type, content);
    const { delay_id: delayId } =
      stateKey === null
        ? await this.client._unstable_sendDelayedEvent(roomId, { delay }, null, type, content)
        : await this.client._unstable_sendDelayedStateEvent(roomId, { delay }, type, content, stateKey);
    return { roomId, delayId };
  }

  async sendStickyEvent(duration, type, content) {
    note("send sticky", type, content);
    const { event_id: eventId } = await this.client._unstable_sendStickyEvent(roomId, duration, null, type, content);
    return { roomId, eventId };
  }

  async sendDelayedStickyEvent(delay, duration, type, content) {
    note("send sticky in", delay, type, content);
    const { delay_id: delayId } = await this.client._unstable_sendStickyDelayedEvent(roomId, duration, { delay }, null, type, content);
    return { roomId, delayId };
  }

  async cancelScheduledDelayedEvent(id) {
    await this.client._unstable_cancelScheduledDelayedEvent(id);
  }

  async restartScheduledDelayedEvent(id) {
    await this.client._unstable_restartScheduledDelayedEvent(id);
  }

  async sendScheduledDelayedEvent(id) {
    note("send now", id);
    await this.client._unstable_sendScheduledDelayedEvent(id);
  }

  async sendToDevice(type, encrypted, messages) {
    note("to device", type, encrypted, Object.keys(messages));
    if (!encrypted) {
      const map = new Map(Object.entries(messages).map(([user, devices]) => [user, new Map(Object.entries(devices))]));
      await this.client.sendToDevice(type, map);
      return;
    }
    // Olm needs the receivers' device keys, and the SDK only follows users of encrypted rooms by itself.
    await this.client.getCrypto().getUserDeviceInfo(Object.keys(messages), true);
    for (const [userId, devices] of Object.entries(messages)) {
      for (const [deviceId, content] of Object.entries(devices)) {
        await this.client.encryptAndSendToDevice(type, [{ userId, deviceId }], content);
      }
    }
  }

  async readRoomAccountData() {
    return [];
  }

  async readRoomTimeline() {
    return []; // a call begins with what happens from now on
  }

  async readEventRelations() {
    return { chunk: [] };
  }

  async readRoomState(_roomId, type, stateKey) {
    const state = this.room.currentState;
    const events = stateKey === undefined ? state.getStateEvents(type) : [state.getStateEvents(type, stateKey) ?? []].flat();
    // Element Call 0.26 told of a sticky event overlooks the last state event after it: let that not be its own membership.
    events.sort((a, b) => (b.getStateKey() === options.userId) - (a.getStateKey() === options.userId));
    return events.map((event) => event.getEffectiveEvent());
  }

  async readStickyEvents() {
    return [...this.room._unstable_getStickyEvents()].map((event) => event.getEffectiveEvent());
  }

  askOpenID(answer) {
    this.client.getOpenIdToken().then(
      (token) => answer.update({ state: OpenIDRequestState.Allowed, token }),
      () => answer.update({ state: OpenIDRequestState.Blocked }),
    );
  }

  async *getTurnServers() {
    const { uris = [], username, password } = await this.client.turnServer();
    yield { uris, username, password };
  }

  async getRtcTransports() {
    return { rtc_transports: await this.client._unstable_getRTCTransports() };
  }

  async getMediaConfig() {
    return this.client.getMediaConfig();
  }

  getKnownRooms() {
    return [roomId];
  }

  processError(error) {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() } : undefined;
  }
}

async function startClient() {
  const client = createClient({ baseUrl: options.homeserver, userId: options.userId, deviceId: options.deviceId, accessToken: options.token });
  // IndexedDB keeps the device's keys: a reload is the same device, as it is for a person. Two people may share a browser.
  await client.initRustCrypto({ cryptoDatabasePrefix: `${options.userId} ${options.deviceId}` });
  const synced = new Promise((resolve) => client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve()));
  await client.startClient({ initialSyncLimit: 20 });
  await synced;
  if (!client.getRoom(roomId)) throw new Error(`${options.userId} is not in ${roomId}`);
  return client;
}

function showElementCall(client) {
  const parameters = {
    widgetId: "call",
    parentUrl: location.origin + location.pathname,
    roomId,
    userId: options.userId,
    deviceId: options.deviceId,
    baseUrl: options.homeserver,
    intent: "join_existing",
    perParticipantE2EE: String(client.getRoom(roomId).hasEncryptionStateEvent()),
    skipLobby: "true",
    confineToRoom: "true",
    header: "none",
    lang: "en",
    theme: "dark",
  };
  const query = Object.entries(parameters).map(([key, value]) => `${key}=${encodeURIComponent(value)}`);
  const frame = document.createElement("iframe");
  frame.allow = "camera; microphone; display-capture; autoplay; clipboard-write";
  const url = new URL(`/element-call/${options.mode}/index.html#/?${query.join("&")}`, location.href).href;
  const widget = new Widget({ id: "call", creatorUserId: options.userId, type: MatrixWidgetType.Custom, url, waitForIframeLoad: false });
  document.body.append(frame); // a frame has no window to talk to before
  const api = new ClientWidgetApi(widget, frame, new Driver(client));
  api.setViewedRoomId(roomId);

  const actions = {
    "io.element.join": () => (host.joined = true),
    "im.vector.hangup": () => (host.joined = false),
    "io.element.close": () => frame.remove(),
    "io.element.device_mute": () => {},
    set_always_on_screen: () => {},
  };
  for (const [action, does] of Object.entries(actions)) {
    api.on(`action:${action}`, (event) => {
      note("action", action);
      event.preventDefault();
      api.transport.reply(event.detail, {});
      does();
    });
  }
  frame.src = url;
  return api;
}

/** Everything that arrives for the room goes on to Element Call; the widget API lets through what it was granted. */
function feed(client, api) {
  const ofTheRoom = (event) => event.getRoomId() === roomId && !event.isBeingDecrypted() && !event.isDecryptionFailure();
  const feedEvent = (event) => ofTheRoom(event) && api.feedEvent(event.getEffectiveEvent(), roomId);
  client.on(ClientEvent.Event, (event) => !event.isEncrypted() && feedEvent(event));
  client.on(MatrixEventEvent.Decrypted, feedEvent);
  client.on(RoomStateEvent.Events, (event) => ofTheRoom(event) && api.feedStateUpdate(event.getEffectiveEvent()));
  client.on(ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) => {
    note("from device", message.type, message.sender, encryptionInfo ? "encrypted" : "clear");
    api.feedToDevice(message, encryptionInfo !== null);
  });
}

try {
  const client = await startClient();
  feed(client, showElementCall(client));
} catch (error) {
  host.error = String(error);
  document.body.textContent = `The call cannot be shown: ${error.message}`;
  throw error;
}
