/** Collections that a program asks for, in its first thread and in the others: each has a heap of its own. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Worker } from 'node:worker_threads';

/** Collects this thread's heap: the program stands still for tens of milliseconds. */
export function collect(): void {
  // Of the kinds of collection the only one after which the emptied pages are the system's again.
  exposed()({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

/** V8's own `gc`, which a new context has once the flag is set. To keep it would keep that context, 1.4 MB. */
function exposed(): (options: object) => void {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  setFlagsFromString('--no-expose-gc');
  return gc;
}

/** The message that asks a thread to collect; how it reads messages is the thread's. */
export const toCollect = 'collect';

const asked = new Set<Worker>();

/** Lets a thread of this process be asked whenever memory is given back, until it ends. */
export function askToCollect(thread: Worker): void {
  asked.add(thread);
  thread.once('exit', () => asked.delete(thread));
}

/** Asks all threads, and waits for none. */
export function askThreadsToCollect(): void {
  for (const thread of asked) thread.postMessage(toCollect);
}
