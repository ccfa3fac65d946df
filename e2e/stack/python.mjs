// The Python environment with Synapse and the native LiveKit client, made once from `requirements.txt` and kept in the
// cache outside the tree. Its name carries the requirements and the interpreter, so a change of either makes a new one.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { CACHE, E2E } from "./places.mjs";

const run = promisify(execFile);

/** Path of the environment's interpreter. Makes the environment when it is missing, which downloads about 100 MB. */
export async function python() {
  const requirements = path.join(E2E, "requirements.txt");
  const { stdout: version } = await run("python3", ["--version"]);
  const name = createHash("sha256").update(version).update(readFileSync(requirements)).digest("hex").slice(0, 12);
  const folder = path.join(CACHE, `python-${name}`);
  const interpreter = path.join(folder, "bin/python");
  const complete = path.join(folder, "complete"); // written last: an interrupted installation is made anew
  if (!existsSync(complete)) {
    console.error("Installing Synapse and the native client from PyPI, once …");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(CACHE, { recursive: true });
    await run("python3", ["-m", "venv", folder]);
    await run(interpreter, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", requirements], { maxBuffer: 1 << 24 });
    writeFileSync(complete, "");
  }
  return interpreter;
}
