/**
 * The first step of a start, apart from the rest so that it can be begun before the rest is loaded: the thread of the
 * embedded database takes as long to come up as all other modules do to load.
 */
import type { Log } from '../src/log.ts';
import type { Clock } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { ServerOptions } from './config.ts';
import { openDataDir } from './data-dir.ts';
import { openStore } from './store/open.ts';
import type { Store } from './store/store.ts';

export interface Begun {
  /** By which this server knows its own authorities again. */
  readonly serverName: string;
  /** Still being opened. A failure is told to whoever waits for it. */
  readonly store: Promise<Store>;
}

/** Takes the data directory and begins to open the store. Throws what `openDataDir` throws. */
export async function begin(
  options: ServerOptions,
  {
    clock,
    random,
    log,
    store,
  }: { readonly clock: Clock; readonly random: Random; readonly log: Log; readonly store?: Store },
): Promise<Begun> {
  const serverName = await openDataDir(options.dataDir, options.trustDomain, random);
  const opening = store
    ? Promise.resolve(store)
    : openStore({
        url: options.database,
        clock,
        random,
        migrate: options.migrateAtStart,
        onWaiting: () => log.warn({}, 'another process has the database; waiting 5 s for it to let go'),
      });
  opening.catch(() => {});
  return { serverName, store: opening };
}
