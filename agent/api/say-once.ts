/**
 * A log for what callers cause: the same thing is written once an hour however often it happens, and one user gets only so
 * many lines of a kind, however many things it thinks of.
 */
import { LRUCache } from 'lru-cache';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';

const period = 60 * 60_000;
/** Different things of one kind that are written of one user in a period. */
const mostThings = 20;
/** Users and kinds remembered; beyond it the one not heard of for longest begins anew. */
const mostUsers = 1_000;

/** `who` has done it, `what` tells this thing from others of the same event. */
export type SayOnce = (who: string, what: string, fields: Readonly<Record<string, unknown>>, event: string) => void;

export function sayOnce(log: Log, clock: Clock): SayOnce {
  const said = new LRUCache<string, { since: number; things: Set<string> }>({ max: mostUsers });
  return (who, what, fields, event) => {
    const key = `${event}\n${who}`;
    const now = clock.now();
    let kind = said.get(key);
    if (kind === undefined || now - kind.since >= period) {
      kind = { since: now, things: new Set() };
      said.set(key, kind);
    }
    if (kind.things.size >= mostThings || kind.things.has(what)) return;
    kind.things.add(what);
    const isLast = kind.things.size === mostThings;
    log.warn(isLast ? { ...fields, more: 'not written within the hour' } : fields, event);
  };
}
