/** The process edge of the agent: options in, signals, and an end that the exit code tells. */
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
import { startAgent } from './agent.ts';
import { agentProgram, readAgentOptions } from './config.ts';

/** Changes the passphrase that seals what the agent keeps, see reseal.ts. Throws `config/invalid` for wrong options too. */
export async function resealKeys(sources: Sources): Promise<readonly ResealedThing[]> {
  const { options } = await readAgentOptions(sources);
  const { resealAgent } = await import('./reseal.ts');
  const log = createLog({ ...options.log, clock: systemClock });
  try {
    return await resealAgent(options, { clock: systemClock, random: systemRandom, log });
  } finally {
    log.close();
  }
}

/**
 * Runs an agent until SIGINT or SIGTERM; on SIGHUP it reads its sources again. Throws `config/invalid` for wrong options,
 * and what keeps the agent from starting or going on, such as its eviction.
 */
export async function runAgent(readSources: () => Promise<Sources>): Promise<void> {
  const { options: atStart, warnings } = await readAgentOptions(await readSources());
  const inForce = liveOptions(agentProgram, atStart);
  const { options } = inForce;
  const clock = systemClock;
  const log = createLog({ ...options.log, clock });
  for (const warning of warnings) log.warn({}, warning);
  let stopGivingBack = (): void => {};
  const started = startAgent(options, { clock, random: systemRandom, log }).then((agent) => {
    boundHeap();
    keepCompiled(clock);
    stopGivingBack = giveBackWhenIdle(clock);
    return agent;
  });
  const asked = {
    reopen: () => log.reopen(),
    reload: reloader({
      read: async () => readAgentOptions(await readSources()),
      live: inForce,
      prepare: preparing(started, log),
      log,
    }),
    stopping: (signal: NodeJS.Signals) => log.info({ signal }, 'agent stopping'),
  };
  try {
    await untilStopped(started, asked, clock);
  } finally {
    stopGivingBack();
    log.close();
  }
}
