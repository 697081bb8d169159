/**
 * Gives memory back to the system while a program is idle. A start maps most of Node's binary, of which little is used
 * afterwards; a burst leaves V8 pages that are mostly empty, and the C library what was freed. All of it stays resident for as
 * long as nobody asks.
 */
import { getHeapStatistics } from 'node:v8';
import { type Clock, sleep } from './clock.ts';
import { askThreadsToCollect, collect } from './collect.ts';
import { lettingGo } from './resident.ts';

/** A program's memory, and what it has done. */
export interface Held {
  /** CPU time of all threads so far, milliseconds. */
  cpu(): number;
  /** What the process has of the machine's memory, bytes. */
  resident(): number;
  /** Of V8's heap: what it has and what of that is used, bytes. */
  heap(): { readonly held: number; readonly used: number };
  /** Collects, and gives the emptied pages of the heap back: the program stands still for tens of milliseconds. */
  collect(): void;
  /** Gives back what this thread's heap has no part in; the program stands still for a few milliseconds. */
  letGo(): Promise<void>;
}

/** How often it is looked whether there is something to give back, milliseconds. */
const every = 4_000;
/** A program that used less of a core than this since the last look is idle, or even at rest. */
const [idle, rest] = [0.1, 0.02];
/** What it frees makes either way of giving back worth its price, bytes; of a large program, what is not the heap's costs more. */
const worth = 16 << 20;
const worthOf = (left: number): number => Math.max(worth, left / 8);
/** Room in V8's heap that makes a collection worth it, bytes: that of a large heap is a long one, and V8 leaves more room there by itself. */
const roomOf = (used: number): number => Math.max(worth, used / 3);
/**
 * So much more than was left, bytes, is what objects hold that nobody has: connections that are closed keep OpenSSL's and
 * HTTP/2's memory until they are collected, of which V8 knows little. After a storm of thousands it is most of what there is.
 */
const uncollected = 128 << 20;
const uncollectedOf = (left: number): number => Math.max(uncollected, left / 2);
/** Between two collections, milliseconds, however little they free. */
const collectApart = 60_000;
/**
 * Between two times that the rest is let go of, milliseconds: at least and at most. Where no load came in between, what is
 * there again is what the program uses for the little that it does, and it waits for twice as long each time.
 */
const apart = { least: 5_000, most: 600_000 };

/** Gives back whenever the program is idle and holds much that it does not use, until the function that it gives is called. */
export function giveBackWhenIdle(clock: Clock, held: Held = ofThisProcess(clock)): () => void {
  let collectAt = clock.now();
  let letGoAt = clock.now();
  let wait = apart.least;
  /** The least that was resident since all was let go of: what comes above that can be let go of again. */
  let left = 0;
  let hasJustLetGo = false;
  let before = { at: clock.now(), cpu: held.cpu() };
  let cancel = (): void => {};

  const giveBack = (now: number, isAtRest: boolean): void => {
    const { held: has, used } = held.heap();
    const resident = held.resident();
    // What a program at rest needs is there again by the next look.
    left = hasJustLetGo && isAtRest ? resident : Math.min(left, resident);
    hasJustLetGo = false;
    const hasGrown = left > 0 && resident - left > uncollectedOf(left);
    const collects = now >= collectAt && (has - used > roomOf(used) || hasGrown);
    if (collects) {
      collectAt = now + collectApart;
      held.collect();
    }
    // A collection frees memory of the C library too: of sockets and keys.
    if (!collects && (now < letGoAt || resident - left <= worthOf(left))) return;
    letGoAt = now + wait;
    wait = Math.min(2 * wait, apart.most);
    void held.letGo().then(() => {
      left = held.resident();
      hasJustLetGo = true;
    });
  };
  const look = (): void => {
    const now = { at: clock.now(), cpu: held.cpu() };
    const share = (now.cpu - before.cpu) / Math.max(now.at - before.at, 1);
    before = now;
    if (share < idle) giveBack(now.at, share < rest);
    else {
      hasJustLetGo = false;
      letGoAt = now.at;
      wait = apart.least;
    }
    cancel = clock.after(every, look);
  };
  cancel = clock.after(every, look);
  return () => cancel();
}

/** What other threads free meanwhile is given back with the rest, milliseconds. */
const threadsTake = 200;

function ofThisProcess(clock: Clock): Held {
  const letGo = lettingGo();
  return {
    cpu() {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
    resident: () => process.memoryUsage.rss(),
    heap() {
      const { total_heap_size: held, used_heap_size: used } = getHeapStatistics();
      return { held, used };
    },
    collect,
    async letGo() {
      askThreadsToCollect();
      await sleep(clock, threadsTake);
      await letGo();
    },
  };
}
