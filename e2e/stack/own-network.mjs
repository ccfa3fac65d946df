// Imported first by a test file, this moves its process into a network namespace of its own, in which it may make bridges,
// further namespaces, firewall rules and host names (network.mjs) without touching the machine's network. All that the file
// starts is inside too. The kernel takes the namespace away with its last process: nothing is left behind, not even after a crash.
//
// Root needs nothing else. Others get it through a user namespace, in which they are root; where that is forbidden,
// `unavailable` says so and the tests skip.
import { spawnSync } from "node:child_process";

const MARK = "E2E_OWN_NETWORK";

/** Debian keeps `ip` and `nft` where only root's shell looks. */
const ENVIRONMENT = { ...process.env, [MARK]: "1", PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Why there is no network of our own, for node:test's `skip`; `false` inside of one. */
export let unavailable = false;

if (!process.env[MARK]) {
  const unshare = ["--net", "--mount", ...(process.getuid() === 0 ? [] : ["--user", "--map-root-user"])];
  const trial = spawnSync("unshare", [...unshare, "ip", "link", "add", "trial", "type", "bridge"], { encoding: "utf8", env: ENVIRONMENT });
  if (trial.status === 0) {
    // The same command once more; this process only hands on how it ended. Should it be killed, so is the other.
    const again = ["--pdeathsig", "TERM", "unshare", ...unshare, process.execPath, ...process.execArgv, ...process.argv.slice(1)];
    const { status } = spawnSync("setpriv", again, { stdio: "inherit", env: ENVIRONMENT });
    process.exit(status ?? 1);
  }
  unavailable = `needs a network namespace; as root it would work (${trial.stderr?.trim() || trial.error?.message})`;
}
