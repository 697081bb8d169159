/**
 * How much memory V8 takes beyond what lives. Left alone, its nursery grows to 128 MB on a machine with many gigabytes and
 * stays so after a burst, and the old generation doubles before it is looked through; flags of the command line would
 * bound both, but a program cannot give itself any. These two can be changed while it runs.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';

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
