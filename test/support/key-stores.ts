/** Opening key stores in tests so that none is left open, and letting what time began come to its end. */
import type { KeyStore } from '../../src/keys/key-store.ts';
import type { DrivenClock } from './clock.ts';

export interface Opened {
  /** Keeps a store to be closed. */
  keep<K extends KeyStore>(store: Promise<K>): Promise<K>;
  close(): Promise<void>;
}

export function openedStores(): Opened {
  const all: KeyStore[] = [];
  return {
    async keep(store) {
      const keys = await store;
      all.push(keys);
      return keys;
    },
    async close() {
      for (const keys of all) await keys.close?.();
    },
  };
}

/** Moves time on in steps of an hour; after each, waits until nobody has called the store for some turns. */
export async function passHours(clock: DrivenClock, hours: number, calls: readonly unknown[]): Promise<void> {
  for (let hour = 0; hour < hours; hour++) {
    await clock.advance(3_600_000);
    await calm(calls);
  }
}

export async function calm(calls: readonly unknown[]): Promise<void> {
  for (let still = 0, seen = calls.length; still < 12; still++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (calls.length !== seen) [still, seen] = [0, calls.length];
  }
}
