// `make demo`: the whole stack, three people in one encrypted room, and a link for each that opens straight into the call.
import { startStack } from "./stack/stack.mjs";

const stack = await startStack((what) => console.log(`== ${what}`));
let stopping = false;
async function stop() {
  if (stopping) return;
  stopping = true;
  console.log("\n== stopping");
  await stack.stop();
  process.exit(0);
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, stop);

const [alice, bob, carol] = await Promise.all(["alice", "bob", "carol"].map((name) => stack.synapse.register(name)));
const roomId = await alice.createRoom({ name: "Parlour", encrypted: true, members: [bob, carol] });

console.log(`
Open these in Chromium, Firefox or Chrome, each in a window of its own:

  Alice, in the web demo:    ${stack.webDemoLink(alice, roomId)}

  Bob, in the web demo:      ${stack.webDemoLink(bob, roomId)}

  Carol, in Element Call:    ${stack.elementCallLink(carol, roomId)}

Everything runs on this machine and vanishes at the end. Ctrl-C stops it.`);

for (const { service } of [stack.synapse, stack.parlour]) {
  service.ended.then(async (how) => {
    if (stopping) return;
    console.error(`\n${service.name} ${how}; its last words:\n${service.lastLines(20)}`);
    stopping = true;
    await stack.stop();
    process.exit(1);
  });
}
