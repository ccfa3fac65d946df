// Waiting for something to become true, with an error that shows what was there instead.
import { setTimeout as sleep } from "node:timers/promises";

/** Stretches every deadline on a machine that is busy with other things; `make test` promises what stands in the tests. */
export const PATIENCE = Number(process.env.E2E_PATIENCE ?? 1);

/**
 * Calls `look` until `holds(seen)`; returns the milliseconds it took.
 * @template T
 * @param {string} what  completes "… did not happen within 10 s"
 * @param {() => Promise<T> | T} look
 * @param {(seen: T) => boolean} holds
 */
export async function until(what, timeoutMs, look, holds, everyMs = 50) {
  const start = performance.now();
  let seen;
  do {
    seen = await look();
    if (holds(seen)) return performance.now() - start;
    await sleep(everyMs);
  } while (performance.now() - start < timeoutMs * PATIENCE);
  throw new Error(`${what}: not within ${(timeoutMs * PATIENCE) / 1000} s; at the end: ${JSON.stringify(seen)}`);
}
