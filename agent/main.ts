/** The process edge of the agent: options in, signals, and an end that the exit code tells. */
import { liveOptions } from '../src/config/live.ts';
import { reloader } from '../src/config/reload.ts';
import type { Sources } from '../src/config.ts';
import { createLog } from '../src/log.ts';
import { systemClock } from '../src/run/clock.ts';
import { boundHeap, giveBackWhenIdle } from '../src/run/heap.ts';
import { systemRandom } from '../src/run/random.ts';
import { startAgent } from './agent.ts';
import { agentProgram, readAgentOptions } from './config.ts';

/**
 * Runs an agent until SIGINT or SIGTERM; on SIGHUP it reads its sources again. Throws `config/invalid` for wrong options,
 * and what keeps the agent from starting or going on, such as its eviction.
 */
export async function runAgent(readSources: () => Promise<Sources>): Promise<void> {
  const growNursery = boundHeap();
  const { options: atStart, warnings } = await readAgentOptions(await readSources());
  const inForce = liveOptions(agentProgram, atStart);
  const { options } = inForce;
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
  const reload = reloader({
    read: async () => readAgentOptions(await readSources()),
    live: inForce,
    prepare: async (next) => {
      const take = await (await started).prepare(next);
      return () => {
        take();
        log.launch(next.log.level);
      };
    },
    log,
  });
  process.on('SIGHUP', reload);
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
    process.off('SIGHUP', reload);
    process.off('SIGUSR2', reopen);
    log.close();
  }
}
