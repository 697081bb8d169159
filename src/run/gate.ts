/** A few at a time: whoever comes when all places are taken waits, first come first served. */
import type { Clock } from './clock.ts';

/**
 * Makes a gate. What it gives waits for a place and gives the function that leaves it; a place is left by itself after
 * `mostMs`, so that one who never leaves keeps nobody waiting for ever. Rejects with the signal's reason.
 */
export function gate(clock: Clock, places: number, mostMs: number): (signal: AbortSignal) => Promise<() => void> {
  let free = places;
  const waiting = new Set<() => void>();

  const enter = (): (() => void) => {
    let left = false;
    const leave = (): void => {
      if (left) return;
      left = true;
      cancel();
      const [next] = waiting;
      if (next === undefined) {
        free += 1;
        return;
      }
      waiting.delete(next);
      next();
    };
    const cancel = clock.after(mostMs, leave);
    return leave;
  };

  return (signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (free > 0) {
        free -= 1;
        return resolve(enter());
      }
      const onAbort = (): void => {
        waiting.delete(go);
        reject(signal.reason);
      };
      const go = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve(enter());
      };
      waiting.add(go);
      signal.addEventListener('abort', onAbort, { once: true });
    });
}
