/** The process edge of the server: options in, signals, and an end that the exit code tells. */

import type { Sources } from '../src/config.ts';
import { createLog } from '../src/log.ts';
import { systemClock } from '../src/run/clock.ts';
import { systemRandom } from '../src/run/random.ts';
import { readServerOptions } from './config.ts';
import { startServer } from './server.ts';

/**
 * Runs a server until SIGINT or SIGTERM. Throws `config/invalid` for wrong options, and what keeps the server from
 * starting or going on.
 */
export async function runServer(sources: Sources): Promise<void> {
  const { options, warnings } = await readServerOptions(sources);
  const clock = systemClock;
  const log = createLog({ ...options.log, clock });
  for (const warning of warnings) log.warn({}, warning);
  const reopen = (): void => log.reopen();
  process.on('SIGUSR2', reopen);
  try {
    const server = await startServer(options, { clock, random: systemRandom, log });
    const stop = (signal: NodeJS.Signals): void => {
      log.info({ signal }, 'server stopping');
      void server.close();
    };
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
    try {
      await server.closed;
      await server.close();
    } finally {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
    }
  } finally {
    process.off('SIGUSR2', reopen);
    log.close();
  }
}
