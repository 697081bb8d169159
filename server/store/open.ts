/** Opens the store that a URL names. */
import { Fault, quote } from '../../src/errors.ts';
import { type Clock, systemClock } from '../../src/run/clock.ts';
import { type Random, systemRandom } from '../../src/run/random.ts';
import { openSqliteStore } from './sqlite.ts';
import type { WorkerStart } from './sqlite-worker.ts';
import type { Store } from './store.ts';
import { dropThread } from './thread.ts';

export interface StoreOptions {
  /** `sqlite:PATH`, `sqlite::memory:` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. */
  readonly url: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** How long to wait for another process to let go of the database file, milliseconds; 5000 unless told. */
  readonly waitMs?: number;
  /** Told at once when another process has the database file, and is waited for. */
  readonly onWaiting?: () => void;
  /** Whether the database may be brought to this program's schema; true unless told. */
  readonly migrate?: boolean;
}

/**
 * Opens the store, creating or migrating the database as needed.
 * Throws `config/invalid` (the URL), `data/foreign` (another program's or a newer schema), `data/corrupt`,
 * `peer/unavailable` (in use, or not reachable), `state/refused` (a schema that may not be changed) and `system/failed`.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { url, clock = systemClock, random = systemRandom, waitMs = 5000, migrate = true } = options;
  const logId = random.uuid();
  if (url.startsWith('sqlite:')) {
    const path = url.slice('sqlite:'.length);
    if (path !== '') return await openSqlite({ path, waitMs, logId, migrate }, clock, options.onWaiting);
  }
  if (/^postgres(ql)?:\/\//.test(url)) {
    dropThread();
    // Loaded when asked for: most servers run on SQLite and should not pay for it.
    const { openPostgresStore } = await import('./postgres.ts');
    return await openPostgresStore(url, { clock, random, logId, migrate });
  }
  throw new Fault('config/invalid', `database ${quote(redacted(url))} is not valid`, {
    hint: 'Write sqlite:PATH, sqlite::memory: or postgres://USER@HOST/DATABASE.',
  });
}

/** Tries without waiting first, so that whoever starts a second server by mistake is told before the wait is over. */
async function openSqlite(start: WorkerStart, clock: Clock, onWaiting: (() => void) | undefined): Promise<Store> {
  if (onWaiting !== undefined && start.waitMs > 0) {
    try {
      return await openSqliteStore({ ...start, waitMs: 0 }, clock);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== 'peer/unavailable') throw error;
      onWaiting();
    }
  }
  return await openSqliteStore(start, clock);
}

/** The URL without a password. */
function redacted(url: string): string {
  return url.replace(/:\/\/([^@/]*)@/, (_, user: string) => `://${user.replace(/:.*/, ':...')}@`);
}
