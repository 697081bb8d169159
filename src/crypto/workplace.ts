/**
 * Where costly arithmetic is done: here, in the turn of the event loop, or aside, in the thread pool. A lone call is
 * quickest here: handing a P-256 verification (63 us) to the pool and back takes 110 us. When calls crowd, the pool uses
 * the other cores (8 at once: 43 us of wall time each, for 80 us of CPU), and this thread does what the pool has no room
 * for: so the queue has an end, and what is not read yet waits with its sender.
 */

import { availableParallelism } from 'node:os';

export type Place = 'here' | 'aside';

/** Jobs in the pool, about a millisecond's worth a thread: files, which it reads too, do not wait long behind them. */
const most = 64;
const cores = availableParallelism();

let isTaken = false;
let underWay = 0;

/** Where the work of one call is best done now: aside when it is not the first of its turn, or others are under way. */
export function choosePlace(): Place {
  if (isTaken || underWay > 0) return 'aside';
  isTaken = true;
  setImmediate(() => {
    isTaken = false;
  });
  return 'here';
}

/** Where the piece at `index` of a batch is done: of as many pieces as there are cores, one here. */
export function placeInBatch(index: number): Place {
  return index % cores === 0 ? 'here' : 'aside';
}

/**
 * Does a piece of work at `place`, or here when there is no room aside.
 * @param here does it now
 * @param start begins it in the pool, and calls back as Node's crypto does
 */
export function workAt<T>(
  place: Place,
  here: () => T,
  start: (done: (error: Error | null, value: T) => void) => void,
): T | Promise<T> {
  if (place === 'here' || underWay >= most) return here();
  return new Promise<T>((resolve, reject) => {
    underWay++;
    try {
      start((error, value) => {
        underWay--;
        if (error) reject(error);
        else resolve(value);
      });
    } catch (error) {
      underWay--;
      throw error;
    }
  });
}
