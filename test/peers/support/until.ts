/**
 * Waiting for a foreign program, of which nothing but its behaviour can be seen: ask again until it answers, to a
 * deadline. Only for programs that run apart; what runs in our own process is driven by a clock.
 */

import { setTimeout as pause } from 'node:timers/promises';

/**
 * Asks `probe` every `everyMs` until it gives something other than undefined, null or false, and gives that.
 * Throws after `deadlineMs`, with `what` and the last error of the probe.
 */
export async function until<T>(
  what: string,
  deadlineMs: number,
  probe: () => T | undefined | null | false | Promise<T | undefined | null | false>,
  everyMs = 50,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined && found !== null && found !== false) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end)
      throw new Error(`${what}: not within ${deadlineMs} ms${last ? `; last: ${(last as Error).message}` : ''}`);
    await pause(everyMs);
  }
}
