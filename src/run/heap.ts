/**
 * How much memory V8 takes beyond what lives. Left alone, its nursery grows to 128 MB on a machine with many gigabytes and
 * stays so after a burst, and the old generation doubles before it is looked through; flags of the command line would
 * bound both, but a program cannot give itself any. These two can be changed while it runs.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { getHeapSpaceStatistics, getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from './clock.ts';

/** Bytes of the nursery, both halves. Issuing costs the same CPU with 16, 32, 64 and 128 MB. */
const nursery = 16 << 20;
/**
 * By how much the old generation may grow between two full collections, percent. A server under load then has 146 MB
 * where it had 195, for no more CPU than can be measured.
 */
const growth = 50;

/**
 * Holds the heap of every thread of this process within bounds from now on. To be called when a program has started: V8
 * takes no compiled code that was stored under other flags, and Node has all its own modules stored so.
 */
export function boundHeap(): void {
  boundGrowth();
  const adjust = (): void => {
    const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space');
    // A factor of 1 keeps the nursery as it is.
    const wanted = (space?.space_size ?? 0) < nursery ? unbound.nursery : 1;
    if (wanted !== nurseryGrowth) growNurseryBy(wanted);
  };
  // It grows at collections, each time at most once; V8 shrinks it when the program has been idle.
  new PerformanceObserver(adjust).observe({ entryTypes: ['gc'] });
  adjust();
}

/** V8's defaults: no percentage of its own, and a nursery that doubles. */
const unbound = { growth: 0, nursery: 2 };

/** By how much the nursery grows at a collection that fills it. */
let nurseryGrowth = unbound.nursery;

function growNurseryBy(factor: number): void {
  nurseryGrowth = factor;
  setFlagsFromString(`--semi-space-growth-factor=${factor}`);
}

function boundGrowth(percent = growth): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}

/** Does something under the flags that were in force before `boundHeap`. */
export function asBeforeBounds(work: () => void): void {
  const bounded = nurseryGrowth;
  boundGrowth(unbound.growth);
  growNurseryBy(unbound.nursery);
  try {
    work();
  } finally {
    boundGrowth();
    growNurseryBy(bounded);
  }
}

/** How often it is looked whether there is something to give back, milliseconds. */
const every = 5_000;
/** A program that used less of a core than this since the last look is idle. */
const idle = 0.1;
/** Giving back is worth a pause of the length of a full collection when it frees so much, bytes. */
const worth = 16 << 20;
/** Between two times it is given back, milliseconds, however little they free. */
const leastApart = 60_000;

/**
 * Gives memory back to the system whenever the program is idle and holds much that it does not use. V8 keeps what a burst
 * needed, in pages that are mostly empty, and so does the nursery; an agent that has opened thousands of connections holds
 * 50 MB for nothing. Runs until the function that it gives is called.
 */
export function giveBackWhenIdle(clock: Clock): () => void {
  let collect: ((options: object) => void) | undefined;
  let last = Number.NEGATIVE_INFINITY;
  let before = { at: clock.now(), cpu: process.cpuUsage() };
  let cancel = (): void => {};
  const look = (): void => {
    const now = { at: clock.now(), cpu: process.cpuUsage() };
    const spent = (now.cpu.user - before.cpu.user + now.cpu.system - before.cpu.system) / 1000;
    const share = spent / Math.max(now.at - before.at, 1);
    before = now;
    const { total_heap_size: held, used_heap_size: used } = getHeapStatistics();
    if (share < idle && held - used > worth && now.at - last >= leastApart) {
      last = now.at;
      collect ??= collector();
      // Of the kinds of collection the only one after which the emptied pages are the system's again.
      collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    }
    cancel = clock.after(every, look);
  };
  cancel = clock.after(every, look);
  return () => cancel();
}

/** V8's own `gc`, which a new context has once the flag is set. */
function collector(): (options: object) => void {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as (options: object) => void;
  setFlagsFromString('--no-expose-gc');
  return gc;
}
