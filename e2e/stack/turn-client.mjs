// A small TURN client over UDP, for what coturn's tools do not ask. Sources: RFC 8489 (STUN), RFC 8656 (TURN), TURN REST API.
import { createHash, createHmac, randomBytes } from "node:crypto";
import dgram from "node:dgram";
import net from "node:net";

export const METHOD = { BINDING: 0x001, ALLOCATE: 0x003, REFRESH: 0x004, CREATE_PERMISSION: 0x008 };
const ATTRIBUTE = {
  USERNAME: 0x0006, MESSAGE_INTEGRITY: 0x0008, ERROR_CODE: 0x0009, LIFETIME: 0x000d, XOR_PEER_ADDRESS: 0x0012, REALM: 0x0014, NONCE: 0x0015,
  REQUESTED_ADDRESS_FAMILY: 0x0017, REQUESTED_TRANSPORT: 0x0019,
};
const UDP = 17;
const FAMILY = { 4: 1, 6: 2 };
const HEADER = 20;
const MAGIC = Buffer.from([0x21, 0x12, 0xa4, 0x42]);
const ANSWER_TIMEOUT_MS = 3_000;

/** A user name and its password, as a homeserver makes them from the secret that it shares with the TURN server. */
export function restCredentials(secret, user = "@alice:parlour.test", lifetimeSeconds = 600) {
  const username = `${Math.floor(Date.now() / 1000) + lifetimeSeconds}:${user}`;
  return { username, password: createHmac("sha1", secret).update(username).digest("base64") };
}

/** A STUN request. `attributes`: pairs of type and value, or what makes the value of the transaction id; signed with `key`. */
export function request(method, attributes = [], key) {
  const id = randomBytes(12);
  const body = attributes.map(([type, value]) => attribute(type, typeof value === "function" ? value(id) : value));
  const message = (length) => Buffer.concat([uint16(method), uint16(length), MAGIC, id, ...body]);
  const length = body.reduce((sum, { length }) => sum + length, 0);
  if (!key) return message(length);
  // The integrity covers a header whose length counts the integrity's own 24 bytes.
  const mac = createHmac("sha1", key).update(message(length + 24)).digest();
  return Buffer.concat([message(length + 24), attribute(ATTRIBUTE.MESSAGE_INTEGRITY, mac)]);
}

/** A bare Allocate for a UDP relay: what a client sends first. */
export const bareAllocate = () => request(METHOD.ALLOCATE, [[ATTRIBUTE.REQUESTED_TRANSPORT, Buffer.from([UDP, 0, 0, 0])]]);

/** `{error: number | undefined, attributes: Map<number, Buffer>}`; 0 or undefined is success. */
export function parse(message) {
  const attributes = new Map();
  for (let at = HEADER; at + 4 <= message.length; ) {
    const length = message.readUInt16BE(at + 2);
    attributes.set(message.readUInt16BE(at), message.subarray(at + 4, at + 4 + length));
    at += 4 + length + padding(length);
  }
  const code = attributes.get(ATTRIBUTE.ERROR_CODE);
  return { error: code && code[2] * 100 + code[3], attributes };
}

export class TurnClient {
  /** @param {{address: string, port: number, username?: string, password?: string, source?: string}} options  `source`: the address to send from */
  constructor({ address, port, username, password, source }) {
    Object.assign(this, { address, port, username, password });
    this.socket = dgram.createSocket(net.isIPv6(address) ? "udp6" : "udp4");
    this.socket.bind({ address: source });
  }

  /** Sends a message and resolves with what comes back, as bytes. */
  async exchange(message) {
    const answer = new Promise((resolve, reject) => {
      const silence = setTimeout(() => end(reject, new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)), ANSWER_TIMEOUT_MS);
      const end = (settle, value) => {
        clearTimeout(silence);
        this.socket.off("message", hear);
        settle(value);
      };
      const hear = (bytes) => bytes.subarray(8, HEADER).equals(message.subarray(8, HEADER)) && end(resolve, bytes);
      this.socket.on("message", hear);
    });
    this.socket.send(message, this.port, this.address);
    return answer;
  }

  /** A request with the long-term credential; takes realm and nonce from a refusal, as clients do. */
  async ask(method, attributes) {
    for (let attempt = 0; ; attempt += 1) {
      const { realm, nonce, username, password } = this;
      const credential = nonce && [[ATTRIBUTE.USERNAME, Buffer.from(username)], [ATTRIBUTE.REALM, realm], [ATTRIBUTE.NONCE, nonce]];
      const key = nonce && createHash("md5").update(`${username}:${realm}:${password}`).digest();
      const answer = parse(await this.exchange(request(method, [...attributes, ...(credential ?? [])], key)));
      if ((answer.error !== 401 && answer.error !== 438) || attempt === 1) return answer;
      this.realm = answer.attributes.get(ATTRIBUTE.REALM);
      this.nonce = answer.attributes.get(ATTRIBUTE.NONCE);
    }
  }

  /** A relayed address of IP version `family`. */
  allocate(family = 4) {
    return this.ask(METHOD.ALLOCATE, [
      [ATTRIBUTE.REQUESTED_TRANSPORT, Buffer.from([UDP, 0, 0, 0])],
      [ATTRIBUTE.REQUESTED_ADDRESS_FAMILY, Buffer.from([FAMILY[family], 0, 0, 0])],
    ]);
  }

  createPermission(peer, port = 9) {
    return this.ask(METHOD.CREATE_PERMISSION, [[ATTRIBUTE.XOR_PEER_ADDRESS, (id) => xorAddress(peer, port, id)]]);
  }

  refresh(lifetimeSeconds) {
    return this.ask(METHOD.REFRESH, [[ATTRIBUTE.LIFETIME, uint32(lifetimeSeconds)]]);
  }

  close() {
    this.socket.close();
  }
}

/** XOR-PEER-ADDRESS: the family, the port and the address, the latter two covered with the cookie and the id. */
function xorAddress(address, port, id) {
  const bytes = addressBytes(address);
  const cover = Buffer.concat([MAGIC, id]);
  const covered = (clear) => clear.map((byte, i) => byte ^ cover[i]);
  return Buffer.concat([uint16(FAMILY[bytes.length === 4 ? 4 : 6]), covered(uint16(port)), covered(bytes)]);
}

function addressBytes(address) {
  if (net.isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  const [head, tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split("::"); // its shortest form, all hexadecimal
  const groups = (text) => (text ? text.split(":").map((group) => uint16(parseInt(group, 16))) : []);
  const [first, last] = [groups(head), groups(tail)];
  return Buffer.concat([...first, Buffer.alloc(16 - 2 * (first.length + last.length)), ...last]);
}

const padding = (length) => -length & 3;

function uint16(number) {
  return Buffer.from([number >> 8, number & 0xff]);
}

function uint32(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

function attribute(type, value) {
  return Buffer.concat([uint16(type), uint16(value.length), value, Buffer.alloc(padding(value.length))]);
}
