/** Writing the cache to disk a little after it changed, so that a burst of changes costs one write. */
import type { Log } from '../src/log.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Cache } from './cache.ts';
import type { AgentState } from './state.ts';

/** Milliseconds from a change to its being written. What is lost in between is fetched again. */
const delay = 2_000;

/** Runs until the signal, then writes what is left. A disk that fails is reported, and does not stop the agent. */
export async function persist(
  cache: Cache,
  state: AgentState,
  { clock, log }: { clock: Clock; log: Log },
  signal: AbortSignal,
): Promise<void> {
  let written = cache.changes.value;
  const write = async (): Promise<void> => {
    const now = cache.changes.value;
    if (now === written) return;
    try {
      await state.saveWorld({
        entries: cache.entries,
        bundles: cache.bundles,
        revoked: cache.revocations.value,
        ...cache.position,
      });
      await state.saveSvids([...cache.svids.values()]);
      written = now;
    } catch (error) {
      log.error({ err: error }, 'state not written');
    }
  };
  try {
    for (;;) {
      await changeAfter(cache, written, signal);
      await sleep(clock, delay, signal);
      await write();
    }
  } finally {
    await write();
  }
}

/** Resolves when the cache is not as it was at `seen`. */
function changeAfter(cache: Cache, seen: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    if (cache.changes.value !== seen) return resolve();
    const unlisten = cache.changes.onChange(() => settle(resolve));
    const onAbort = (): void => settle(() => reject(signal.reason));
    const settle = (end: () => void): void => {
      unlisten();
      signal.removeEventListener('abort', onAbort);
      end();
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
