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

/** Where the pieces of a batch are best done: what this thread has to do of each is as long as what the pool does. */
export const placeInBatch: Place = cores > 1 ? 'aside' : 'here';

/** Pieces of batches that are begun in one turn of the event loop: two milliseconds' worth. */
const piecesInTurn = 16;
const waiting: (() => void)[] = [];
let begun = 0;

/**
 * Begins a piece of a batch, now or in one of the next turns, first come first served. However many batches there are, the
 * loop turns every few milliseconds: other calls are answered between the pieces, and the pool, which hands its results
 * over between two turns, never stands idle for want of more.
 */
export function inTurn<T>(piece: () => T | Promise<T>): T | Promise<T> {
  if (begun < piecesInTurn && waiting.length === 0) {
    if (begun === 0) setImmediate(nextTurn);
    begun += 1;
    return piece();
  }
  return new Promise<void>((resolve) => {
    waiting.push(resolve);
  }).then(piece);
}

function nextTurn(): void {
  const next = waiting.splice(0, piecesInTurn);
  begun = next.length;
  if (begun > 0) setImmediate(nextTurn);
  for (const begin of next) begin();
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
