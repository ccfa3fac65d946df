// Waiting for something to become true, with an error that shows what was there instead.
import { setTimeout as sleep } from "node:timers/promises";

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
  } while (performance.now() - start < timeoutMs);
  throw new Error(`${what}: not within ${timeoutMs / 1000} s; at the end: ${JSON.stringify(seen)}`);
}
