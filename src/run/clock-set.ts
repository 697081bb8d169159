/**
 * Notices that the clock was set, or that the machine slept: timers go on as if nothing had happened, so whoever waits
 * for a moment that is now past, or far off, has to be woken.
 */
import { type Clock, sleep } from './clock.ts';

/** How often to look, and what is no more than a busy machine or a clock being steered, milliseconds. */
const lookEvery = 10_000;
const tolerance = 5_000;

/**
 * Watches until the signal is aborted.
 * @param told by how many milliseconds the clock moved beyond the time that passed: negative when it went back
 */
export async function watchClock(clock: Clock, signal: AbortSignal, told: (ms: number) => void): Promise<void> {
  for (;;) {
    const before = clock.now();
    await sleep(clock, lookEvery, signal);
    const moved = clock.now() - before - lookEvery;
    if (Math.abs(moved) > tolerance) told(moved);
  }
}
