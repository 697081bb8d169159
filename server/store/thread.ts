/**
 * The thread of the embedded database. It takes as long to come up as all else of a start, so it can be begun before it is
 * known what it shall open, or whether.
 */
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';

/** Of the process and not of this file: what begins the thread in a build is not in the same bundle as what takes it. */
const place = Symbol.for('mutual.storeThread');
const shared = globalThis as { [place]?: Worker | undefined };

/** Lets a thread come up for the store that is opened next. It keeps nothing alive. */
export function beginThread(): void {
  if (shared[place] !== undefined) return;
  const thread = newThread();
  shared[place] = thread;
  thread.unref();
  // One that cannot live ends like that before it is taken, or as soon as another is made in its place.
  thread
    .on('error', () => {})
    .once('exit', () => {
      if (shared[place] === thread) shared[place] = undefined;
    });
}

/** The thread that was begun, or a new one. It waits to be told what to open; its errors are the taker's to hear. */
export function takeThread(): Worker {
  const thread = shared[place] ?? newThread();
  shared[place] = undefined;
  thread.removeAllListeners('error').ref();
  return thread;
}

/** Ends a thread that was begun and turned out not to be needed. */
export function dropThread(): void {
  void shared[place]?.terminate();
  shared[place] = undefined;
}

function newThread(): Worker {
  const cache = getCompileCacheDir();
  return new Worker(file(), {
    name: 'store',
    // Statements and their rows die young; with 4 MB for them the thread is as fast as with the 64 of the default.
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
    // Only by this variable does a thread take compiled code from where this one has it.
    ...(cache !== undefined && { env: { ...process.env, NODE_COMPILE_CACHE: dirname(cache) } }),
  });
}

/** It lies beside this file, in the source and in a bundle. */
function file(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './sqlite-worker.ts' : './sqlite-worker.cjs', import.meta.url);
}
