/**
 * Who was issued what, written a little later and many at a time: issuing does not wait for it. A server that is killed
 * loses the records of its last moments; those SVIDs can then only be revoked by their serials.
 */
import { asFault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Issuance, Revocations } from '../store/store.ts';

export interface Recorder {
  record(issued: Issuance): void;
  /** Resolves when everything recorded before the call is in the store, or is known not to get there now. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Milliseconds that a record waits for others, records in one write, and records held while the store is away. */
const wait = 100;
const atOnce = 2_000;
const mostHeld = 200_000;

export function issuanceRecorder(
  store: Pick<Revocations, 'record'>,
  { clock, log }: { clock: Clock; log: Log },
): Recorder {
  let waiting: Issuance[] = [];
  let cancel: (() => void) | undefined;
  let writing: Promise<void> = Promise.resolve();

  async function write(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.slice(0, atOnce);
      waiting = waiting.slice(atOnce);
      try {
        await store.record(batch);
      } catch (error) {
        const { code, message } = asFault(error);
        // Only a store that is away is worth another try; a batch it refuses is one that it may have already.
        if (code !== 'peer/unavailable') {
          log.error({ code, message, count: batch.length }, 'issued SVIDs not recorded');
          continue;
        }
        waiting = [...batch, ...waiting].slice(-mostHeld);
        log.warn({ code, message, count: waiting.length }, 'issued SVIDs not recorded yet');
        schedule();
        return;
      }
    }
  }
  function flush(): Promise<void> {
    cancel?.();
    cancel = undefined;
    writing = writing.then(write);
    return writing;
  }
  function schedule(): void {
    cancel ??= clock.after(wait, () => void flush());
  }
  return {
    record(issued) {
      waiting.push(issued);
      schedule();
    },
    flush,
    async close() {
      await flush();
      cancel?.();
    },
  };
}
