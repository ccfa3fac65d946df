// A name server that knows the names of the tests and no others. Source: RFC 1035, RFC 2782 (SRV).
import dgram from "node:dgram";

const DNS_PORT = 53;
const TYPE = { A: 1, SRV: 33 };
const CLASS_IN = 1;
const TTL_S = 60;
const HEADER = 12;
const NO_SUCH_NAME = 3;

/** A name in a message is compressed to where the question has it. */
const NAME_OF_QUESTION = 0xc000 | HEADER;

/**
 * @param {{address: string, hosts: Record<string, string>, services?: Record<string, {target: string, port: number}>}} options
 *   `hosts`: name → IPv4 address; `services`: name → what its SRV record says.
 */
export async function startNameServer({ address, hosts, services = {} }) {
  const socket = dgram.createSocket("udp4");
  const names = new Set([...Object.keys(hosts), ...Object.keys(services)]);

  function data(name, type) {
    if (type === TYPE.A && hosts[name]) return Buffer.from(hosts[name].split(".").map(Number));
    if (type === TYPE.SRV && services[name]) return Buffer.concat([uint16(10), uint16(10), uint16(services[name].port), labels(services[name].target)]);
  }

  socket.on("message", (message, { address: asker, port }) => {
    const { name, type, end } = question(message);
    const answer = data(name, type);
    const flags = 0x8580 | (names.has(name) ? 0 : NO_SUCH_NAME); // an answer, authoritative, recursive
    const header = [message.subarray(0, 2), uint16(flags), uint16(1), uint16(answer ? 1 : 0), uint16(0), uint16(0)];
    const record = answer ? [uint16(NAME_OF_QUESTION), uint16(type), uint16(CLASS_IN), uint16(0), uint16(TTL_S), uint16(answer.length), answer] : [];
    socket.send(Buffer.concat([...header, message.subarray(HEADER, end), ...record]), port, asker);
  });
  await new Promise((resolve, reject) => socket.once("error", reject).bind(DNS_PORT, address, resolve));
  return { stop: () => new Promise((resolve) => socket.close(resolve)) };
}

/** Name and type that a message asks for, and where the question ends. */
function question(message) {
  const parts = [];
  let at = HEADER;
  for (; message[at]; at += message[at] + 1) parts.push(message.toString("latin1", at + 1, at + 1 + message[at]));
  return { name: parts.join(".").toLowerCase(), type: message.readUInt16BE(at + 1), end: at + 5 };
}

function labels(name) {
  return Buffer.concat([...name.split(".").map((label) => Buffer.from([label.length, ...Buffer.from(label)])), Buffer.from([0])]);
}

function uint16(number) {
  return Buffer.from([number >> 8, number & 0xff]);
}
