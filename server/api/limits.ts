/**
 * Rate limits by caller address. A call over the rate waits for its turn, as SPIRE's do; it is refused only when its
 * turn cannot come: it asks for more than the bucket holds, or its deadline is nearer than its turn.
 */
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';

/** Tokens a second, which is also the burst; 0 means no limit. */
export interface Rates {
  readonly attest: number;
  readonly csr: number;
  readonly jwt: number;
  readonly wit: number;
  readonly push: number;
  readonly post: number;
}

/** A bucket is the time at which it would be full again: taking moves that time on. */
const mostCallers = 100_000;
/** Nobody waits longer than this, whatever the deadline: the queue of one address stays short. */
const longestWait = 30_000;

export type Limiter = (call: Call, kind: keyof Rates, count?: number) => Promise<void>;

/** @param recheck called after a wait: who had rights before it may have none after it */
export function rateLimiter(rates: Rates, clock: Clock, recheck: (call: Call) => unknown): Limiter {
  // Longest untouched first.
  const fullAt = new Map<string, number>();
  return async (call, kind, count = 1) => {
    const rate = rates[kind];
    if (rate === 0 || call.caller.kind === 'unix') return;
    if (count > rate) {
      throw new Fault('limit/exceeded', `rate (${count}) exceeds burst size (${rate})`, {
        hint: `Send at most ${rate} at once.`,
      });
    }
    const key = `${kind}|${call.caller.address}`;
    const now = clock.now();
    const full = Math.max(fullAt.get(key) ?? now, now) + (count * 1000) / rate;
    // A full bucket holds one second's worth: whoever pushes `full` further than that waits for the difference.
    const wait = full - now - 1000;
    const patience = Math.min(call.deadline === undefined ? longestWait : call.deadline - now, longestWait);
    if (wait > 0 && wait > patience) {
      throw new Fault(
        'limit/exceeded',
        `too many calls: the next one of this kind is possible in ${Math.ceil(wait)} ms`,
        {
          hint: `The limit is ${rate} a second for each address; try again later.`,
          retryAfterMs: Math.ceil(wait),
        },
      );
    }
    fullAt.delete(key);
    fullAt.set(key, full);
    if (fullAt.size > mostCallers) fullAt.delete(fullAt.keys().next().value as string);
    if (wait <= 0) return;
    await sleep(clock, wait, call.signal);
    await recheck(call);
  };
}
