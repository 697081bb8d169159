/** The process edge of the agent: options in, signals, and an end that the exit code tells. */
import type { Sources } from '../src/config.ts';
import { createLog } from '../src/log.ts';
import { systemClock } from '../src/run/clock.ts';
import { boundHeap, giveBackWhenIdle } from '../src/run/heap.ts';
import { systemRandom } from '../src/run/random.ts';
import { startAgent } from './agent.ts';
import { readAgentOptions } from './config.ts';

/**
 * Runs an agent until SIGINT or SIGTERM. Throws `config/invalid` for wrong options, and what keeps the agent from
 * starting or going on, such as its eviction.
 */
export async function runAgent(sources: Sources): Promise<void> {
  const growNursery = boundHeap();
  const { options, warnings } = await readAgentOptions(sources);
  const clock = systemClock;
  const log = createLog({ ...options.log, clock });
  for (const warning of warnings) log.warn({}, warning);
  const reopen = (): void => log.reopen();
  process.on('SIGUSR2', reopen);
  const started = startAgent(options, { clock, random: systemRandom, log });
  const stop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'agent stopping');
    void started.then((agent) => agent.close());
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  let stopGivingBack = (): void => {};
  try {
    const agent = await started;
    growNursery();
    stopGivingBack = giveBackWhenIdle(clock);
    await agent.closed;
    await agent.close();
  } finally {
    stopGivingBack();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    process.off('SIGUSR2', reopen);
    log.close();
  }
}
