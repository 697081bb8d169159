/**
 * The thread of the embedded database. It takes as long to come up as all else of a start, so it can be begun before it is
 * known what it shall open, or whether.
 */
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';

let begun: Worker | undefined;

/** Lets a thread come up for the store that is opened next. It keeps nothing alive. */
export function beginThread(): void {
  if (begun !== undefined) return;
  const thread = newThread();
  begun = thread;
  thread.unref();
  // One that cannot live ends like that before it is taken, or as soon as another is made in its place.
  thread.on('error', ignore).once('exit', () => {
    if (begun === thread) begun = undefined;
  });
}

/** The thread that was begun, or a new one. It waits to be told what to open; its errors are the taker's to hear. */
export function takeThread(): Worker {
  const thread = begun?.off('error', ignore) ?? newThread();
  begun = undefined;
  thread.ref();
  return thread;
}

/** Ends a thread that was begun and turned out not to be needed. */
export function dropThread(): void {
  void begun?.terminate();
  begun = undefined;
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

function ignore(): void {}
