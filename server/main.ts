/** The process edge of the server: options in, signals, and an end that the exit code tells. */

import { liveOptions } from '../src/config/live.ts';
import type { Sources } from '../src/config/read.ts';
import { preparing, reloader } from '../src/config/reload.ts';
import type { ResealedThing } from '../src/keys/reseal.ts';
import { createLog } from '../src/log.ts';
import { systemClock } from '../src/run/clock.ts';
import { keepCompiled } from '../src/run/compiled.ts';
import { giveBackWhenIdle } from '../src/run/give-back.ts';
import { boundHeap } from '../src/run/heap.ts';
import { systemRandom } from '../src/run/random.ts';
import { untilStopped } from '../src/run/signals.ts';
import { begin } from './begin.ts';
import { readServerOptions, serverProgram } from './config.ts';
import type { RunningServer } from './server.ts';
import { openStore } from './store/open.ts';

/** What `server migrate` has done. */
export interface Migration {
  /** Versions of the schema; `before` is 0 for an empty database. */
  readonly before: number;
  readonly after: number;
  readonly logId: string;
  readonly position: number;
}

/**
 * Brings the server's database to this version's schema, and gives its log a new identity if asked to.
 * Throws `config/invalid` for wrong options and what `openStore` throws.
 */
export async function migrateDatabase(sources: Sources, newLogId: boolean): Promise<Migration> {
  const { options } = await readServerOptions(sources);
  const store = await openStore({ url: options.database });
  try {
    await store.claim(options.trustDomain);
    const renewed = newLogId ? systemRandom.uuid() : undefined;
    if (renewed !== undefined) await store.log.renew(renewed);
    return { ...store.schema, logId: renewed ?? store.log.id, position: await store.log.position() };
  } finally {
    await store.close();
  }
}

/** Changes the passphrase that seals the keys, see reseal.ts. Throws `config/invalid` for wrong options too. */
export async function resealKeys(sources: Sources): Promise<readonly ResealedThing[]> {
  const { options } = await readServerOptions(sources);
  const { resealServer } = await import('./reseal.ts');
  const log = createLog({ ...options.log, clock: systemClock });
  try {
    return await resealServer(options, { clock: systemClock, random: systemRandom, log });
  } finally {
    log.close();
  }
}

/**
 * Runs a server until SIGINT or SIGTERM; on SIGHUP it reads its sources again. Throws `config/invalid` for wrong options,
 * and what keeps the server from starting or going on.
 */
export async function runServer(readSources: () => Promise<Sources>): Promise<void> {
  const { options: atStart, warnings } = await readServerOptions(await readSources());
  const inForce = liveOptions(serverProgram, atStart);
  const { options } = inForce;
  const clock = systemClock;
  const log = createLog({ ...options.log, clock });
  for (const warning of warnings) log.warn({}, warning);
  let stopGivingBack = (): void => {};
  const start = async (): Promise<RunningServer> => {
    const ports = { clock, random: systemRandom, log, upstreamPatience: 60_000 };
    const begun = await begin(options, ports);
    const { startServer } = await import('./server.ts');
    const server = await startServer(options, ports, begun);
    boundHeap();
    keepCompiled(clock);
    stopGivingBack = giveBackWhenIdle(clock);
    return server;
  };
  const started = start();
  const asked = {
    reopen: () => log.reopen(),
    reload: reloader({
      read: async () => readServerOptions(await readSources()),
      live: inForce,
      prepare: preparing(started, log),
      log,
    }),
    stopping: (signal: NodeJS.Signals) => log.info({ signal }, 'server stopping'),
  };
  try {
    await untilStopped(started, asked, clock);
  } finally {
    stopGivingBack();
    log.close();
  }
}
