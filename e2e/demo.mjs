// `make demo`: the whole stack, three people in one encrypted room, and a link for each that opens straight into the call.
import { startStack } from "./stack/stack.mjs";

let stack;
let stopping = false;

async function stop(status, farewell) {
  if (stopping) return;
  stopping = true;
  console.log(farewell);
  await stack?.stop();
  process.exit(status); // also ends what had only begun to start
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop(0, "\n== Stopping"));

stack = await startStack((what) => console.log(`== ${what}`), { appservice: true });
const [alice, bob, carol] = await Promise.all(["alice", "bob", "carol"].map((name) => stack.synapse.register(name)));
const roomId = await alice.createRoom({ name: "Parlour", encrypted: true, members: [bob, carol] });

console.log(`
Open these in Chromium, Chrome or Firefox, each in a window of its own:

  Alice, in the web demo    ${stack.webDemoLink(alice, roomId)}

  Bob, in the web demo      ${stack.webDemoLink(bob, roomId)}

  Carol, in Element Call    ${stack.elementCallLink(carol, roomId)}

Everything runs on this machine and vanishes at the end. Ctrl-C stops it.`);

for (const { service } of [stack.synapse, stack.parlour]) {
  service.ended.then((how) => stop(1, `\n${service.name} ${how}; its last words:\n${service.lastLines(20)}`));
}
