/**
 * Writing the cache to disk a little after it changed, so that a burst of changes costs one write; what did not change is
 * not written, and a large cache that changes all the time takes a tenth of the disk's time at most.
 */
import type { Log } from '../src/log.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Cache } from './cache.ts';
import type { AgentState } from './state.ts';

/** The least from a change to its being written, milliseconds. What is lost in between is fetched again. */
const delay = 2_000;
/** A pause is so many times as long as the writing before it. */
const rest = 10;

/** Runs until the signal, then writes what is left. A disk that fails is reported, and does not stop the agent. */
export async function persist(
  cache: Cache,
  state: AgentState,
  { clock, log }: { clock: Clock; log: Log },
  signal: AbortSignal,
): Promise<void> {
  let written = cache.changes.value;
  let worldWritten = cache.worldChanges;
  let took = 0;
  const write = async (): Promise<void> => {
    const now = cache.changes.value;
    if (now === written) return;
    const began = clock.now();
    try {
      const worldNow = cache.worldChanges;
      if (worldNow !== worldWritten) {
        await state.saveWorld({
          entries: cache.entries,
          bundles: cache.bundles,
          revoked: cache.revocations.value,
          ...cache.position,
        });
        worldWritten = worldNow;
      }
      await state.saveSvids([...cache.svids.values()]);
      written = now;
    } catch (error) {
      log.error({ err: error }, 'state not written');
    }
    took = clock.now() - began;
  };
  try {
    for (;;) {
      await changeAfter(cache, written, signal);
      await sleep(clock, Math.max(delay, rest * took), signal);
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
