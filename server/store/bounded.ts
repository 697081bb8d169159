/**
 * How much may wait for a database. One that is slow keeps whoever asks of it waiting; more of them than this are told so
 * at once, or their questions would take the server's memory and be worked off long after nobody waits for the answers.
 */
import { Fault } from '../../src/errors.ts';
import type { Ask, OperationName } from './operations.ts';

/** Of entries, nodes and the like that wait to be written or read, where one takes about a kilobyte. */
const mostWaiting = 20_000;
const retryAfterMs = 5_000;

/**
 * Refuses what is asked while too much waits already with `peer/unavailable`.
 * @param most what may wait; a question with a list counts as much as the list is long, and is taken when nothing waits
 */
export function bounded(ask: Ask, most = mostWaiting): Ask {
  let waiting = 0;
  return (async (name: OperationName, ...given: unknown[]) => {
    const weight = Array.isArray(given[0]) ? Math.max(given[0].length, 1) : 1;
    if (waiting > 0 && waiting + weight > most) {
      throw new Fault('peer/unavailable', `the database is too slow: ${waiting} questions wait for it`, {
        hint: 'Try again later.',
        retryAfterMs,
      });
    }
    waiting += weight;
    try {
      return await (ask as (name: OperationName, ...given: unknown[]) => Promise<unknown>)(name, ...given);
    } finally {
      waiting -= weight;
    }
  }) as Ask;
}

/** One question at a time: whoever asks while one is under way gets its answer. */
export function oneAtATime<T>(ask: () => Promise<T>): () => Promise<T> {
  let asking: Promise<T> | undefined;
  return () => {
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    return asking;
  };
}
