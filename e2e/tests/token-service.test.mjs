// The token service over a real Synapse: OpenID tokens are verified, identities and room names are those of MSC4195.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { startStack } from "../stack/stack.mjs";
import { requestSfu, requestToken } from "../stack/token-service.mjs";

let stack, alice, room;
before(async () => {
  stack = await startStack();
  alice = await stack.synapse.register("alice");
  room = await alice.createRoom({ name: "Call" });
});
after(() => stack?.stop());

const claims = (jwt) => JSON.parse(Buffer.from(jwt.split(".")[1], "base64"));
const hash = (...strings) => createHash("sha256").update(JSON.stringify(strings)).digest("base64").replaceAll("=", "");

test("/sfu/get answers an OpenID token with a way in under user:device", async () => {
  const { status, headers, body } = await requestSfu(stack.parlour.url, { room, device: "DEVICE", openIdToken: await alice.openIdToken() });
  assert.equal(status, 200, JSON.stringify(body));
  assert.equal(headers.get("access-control-allow-origin"), "*");
  assert.equal(body.url, stack.parlour.url.replace("http", "ws"));
  const { sub, video } = claims(body.jwt);
  assert.equal(sub, `${alice.userId}:DEVICE`);
  assert.equal(video.room, hash(room, "m.call#ROOM"));
  assert.equal(video.roomJoin, true);
});

test("/get_token names the same room and a hashed identity", async () => {
  const { status, body } = await requestToken(stack.parlour.url, {
    room, user: alice.userId, device: "DEVICE", member: "MEMBER", openIdToken: await alice.openIdToken(),
  });
  assert.equal(status, 200, JSON.stringify(body));
  const { sub, video } = claims(body.jwt);
  assert.equal(sub, hash(alice.userId, "DEVICE", "MEMBER"));
  assert.equal(video.room, hash(room, "m.call#ROOM"));
});

test("the payload of a token is decodable by atob", async () => {
  // Element Call decodes it so; which characters turn up depends on the content, so ask often.
  for (let i = 0; i < 20; i += 1) {
    const { body } = await requestSfu(stack.parlour.url, { room, device: `DEVICE${"?".repeat(i)}`, openIdToken: await alice.openIdToken() });
    assert.equal(JSON.parse(atob(body.jwt.split(".")[1])).sub, `${alice.userId}:DEVICE${"?".repeat(i)}`);
  }
});

test("a token that Synapse does not know is refused", async () => {
  const openIdToken = { ...(await alice.openIdToken()), access_token: "forged" };
  const { status, body } = await requestSfu(stack.parlour.url, { room, device: "DEVICE", openIdToken });
  assert.equal(status, 401);
  assert.equal(body.errcode, "M_UNAUTHORIZED");
});

test("nobody gets in as somebody else", async () => {
  const { status } = await requestToken(stack.parlour.url, {
    room, user: "@mallory:parlour.test", device: "DEVICE", member: "MEMBER", openIdToken: await alice.openIdToken(),
  });
  assert.equal(status, 401);
});

test("Synapse and the well-known document name Parlour as transport", async () => {
  const transports = [{ type: "livekit", livekit_service_url: stack.parlour.url }];
  const response = await fetch(`${stack.synapse.url}/_matrix/client/unstable/org.matrix.msc4143/rtc/transports`, {
    headers: { Authorization: `Bearer ${alice.token}` },
  });
  assert.deepEqual(await response.json(), { rtc_transports: transports });
  const wellKnown = await (await fetch(`${stack.parlour.url}/.well-known/matrix/client`)).json();
  assert.deepEqual(wellKnown["org.matrix.msc4143.rtc_foci"], transports);
});
