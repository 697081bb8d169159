/** A clock that stands still until a test moves it. */
import type { Clock } from '../../src/run/clock.ts';

export interface DrivenClock extends Clock {
  /** Moves time by `ms`, firing due timers in order of time (then of creation), and lets promises settle after each. */
  advance(ms: number): Promise<void>;
  /** Moves time without firing anything: a machine that slept. The timers fire at the next `advance`. */
  jump(ms: number): void;
  /** Sets the time as an operator or NTP does: timers go on waiting for as long as they had to. */
  set(ms: number): void;
  /** How many timers wait. */
  readonly waiting: number;
}

/** @param start milliseconds since the Unix epoch */
export function drivenClock(start = Date.UTC(2030, 0, 1)): DrivenClock {
  let now = start;
  let made = 0;
  const timers = new Map<number, { at: number; fire: () => void }>();

  const nextDue = (until: number): number | undefined => {
    let found: number | undefined;
    let at = until;
    for (const [id, timer] of timers) {
      if (timer.at < at || (timer.at === at && found === undefined)) {
        found = id;
        at = timer.at;
      }
    }
    return found;
  };

  return {
    now: () => now,
    after(ms, fire) {
      const id = made++;
      timers.set(id, { at: now + Math.max(ms, 0), fire });
      return () => timers.delete(id);
    },
    async advance(ms) {
      const until = now + ms;
      await settle();
      for (let id = nextDue(until); id !== undefined; id = nextDue(until)) {
        const timer = timers.get(id)!;
        timers.delete(id);
        now = Math.max(now, timer.at);
        timer.fire();
        await settle();
      }
      now = Math.max(now, until);
      await settle();
    },
    jump(ms) {
      now += ms;
    },
    set(ms) {
      for (const timer of timers.values()) timer.at += ms - now;
      now = ms;
    },
    get waiting() {
      return timers.size;
    },
  };
}

/**
 * Waits for what this process itself brings about over real sockets and threads, which take their time: looks after each
 * turn of the event loop, for a minute at most. The caller asserts what it waited for.
 */
export async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + 60_000;
  while (!isSo() && performance.now() < end) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** Lets everything that is ready to run do so: promise jobs and a few turns of the event loop. */
export async function settle(turns = 4): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}
