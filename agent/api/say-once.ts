/** A log for what callers cause: however often they do, the same thing is written once in a while. */
import { LRUCache } from 'lru-cache';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';

const period = 60 * 60_000;
/** Things remembered; beyond it the one not seen for longest may be written again. */
const most = 1_000;

/** `about` says whose doing and which thing it is; the first of an hour is written. */
export type SayOnce = (about: string, fields: Readonly<Record<string, unknown>>, event: string) => void;

export function sayOnce(log: Log, clock: Clock): SayOnce {
  const said = new LRUCache<string, number>({ max: most });
  return (about, fields, event) => {
    const key = `${event}\n${about}`;
    const now = clock.now();
    if (now - (said.get(key) ?? Number.NEGATIVE_INFINITY) < period) return;
    said.set(key, now);
    log.warn(fields, event);
  };
}
