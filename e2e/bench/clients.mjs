// Clients for bench/turn.mjs, run on the client's machine. Each mode prints a line of JSON for each thing done.
//
//   clients.mjs flood '{"address", "port", "count", "sources"}'
//     one Allocate without credentials from each of `count` ports, and does not wait for answers
//   clients.mjs allocate '{"address", "port", "secret", "count", "peer", "sources"}'
//     `count` allocations, held until stdin ends; after the first line on stdin each permits `peer`
//
// `sources`: addresses of this machine to send from, in turns. What a server limits per source it does not limit here.
import dgram from "node:dgram";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { bareAllocate, restCredentials, TurnClient } from "../stack/turn-client.mjs";

/** Requests under way at a time: enough to keep the server busy, few enough for its socket's buffer. */
const AT_ONCE = 32;

const [mode, json] = process.argv.slice(2);
const options = JSON.parse(json);
const sourceOf = (i) => options.sources[i % options.sources.length];

/** Calls `work` for each number below `count`, some at a time. */
async function each(count, work) {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function timed(what, work) {
  const start = performance.now();
  await work();
  console.log(JSON.stringify({ what, seconds: (performance.now() - start) / 1000 }));
}

async function flood({ address, port, count }) {
  await timed("flood", () =>
    each(count, async (i) => {
      const socket = dgram.createSocket("udp4");
      socket.bind({ address: sourceOf(i) });
      await new Promise((resolve) => socket.send(bareAllocate(), port, address, resolve));
      socket.close();
    }),
  );
}

async function allocate({ address, port, secret, count, peer }) {
  const turns = Array.from({ length: count }, (_, i) => new TurnClient({ address, port, source: sourceOf(i), ...restCredentials(secret, `@user${i}:parlour.test`) }));
  const all = (request) => each(count, async (i) => {
    const { error } = await request(turns[i]);
    if (error) throw new Error(`refused with ${error}`);
  });
  const lines = createInterface({ input: process.stdin });
  await timed("allocate", () => all((turn) => turn.allocate()));
  await once(lines, "line");
  await timed("permit", () => all((turn) => turn.createPermission(peer)));
  await once(lines, "close");
  for (const turn of turns) turn.close();
}

await { flood, allocate }[mode](options);
