/**
 * Agents that all want everything at once, as after a restore of the database: some are served at a time, since their
 * messages are made when it is their turn, some stand in line, and to the others it costs one refusal to be told when to come
 * again, each a little later than the one before.
 */
import { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { gate } from '../../src/run/gate.ts';

/** Snapshots under way at a time, and the milliseconds after which one no longer keeps others waiting. */
const atOnce = 32;
const turn = 5_000;
/** Agents in line: a second's work or two, so that nobody has left it when it is served. */
const mostWaiting = 256;
/** Milliseconds: the next appointment that is made, the time between two, and the last. */
const appointments = { first: 1_000, apart: 5, last: 60_000 } as const;

/**
 * What this gives waits for a turn and gives the function that ends it. Throws `limit/exceeded` with the time of an
 * appointment when the line is long, and the signal's reason.
 */
export function snapshotLine(clock: Clock): (signal: AbortSignal) => Promise<() => void> {
  const enter = gate(clock, atOnce, turn);
  let waiting = 0;
  let given = Number.NEGATIVE_INFINITY;
  return async (signal) => {
    if (waiting >= mostWaiting) {
      const now = clock.now();
      given = Math.min(Math.max(given, now + appointments.first) + appointments.apart, now + appointments.last);
      throw new Fault('limit/exceeded', `${waiting} agents wait for all of their entries`, {
        hint: 'The answer says when to come again.',
        retryAfterMs: given - now,
      });
    }
    waiting += 1;
    try {
      return await enter(signal);
    } finally {
      waiting -= 1;
    }
  };
}
