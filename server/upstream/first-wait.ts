/**
 * The wait for the authority above at the first start of a server, which has nothing to go on with yet. Below a server of a
 * fresh tree its entry is often made a moment later, and after a power cut everything starts at once; who ends at the first
 * refusal is started again by something that soon gives up. What waiting does not mend, an operator reads at once.
 */
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { SteadyUpstream } from './steady.ts';

const askEvery = 2_000;

/**
 * Does the work, again as long as the upstream authority is away. It has to be such that it may be done again. Throws what
 * the work throws, after `patience` milliseconds also that.
 */
export async function awaitUpstream<T>(
  upstream: SteadyUpstream | undefined,
  patience: number,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
  work: () => Promise<T>,
): Promise<T> {
  const until = clock.now() + patience;
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await work();
    } catch (error) {
      const isAway = error instanceof Fault && error.code === 'upstream/unavailable';
      if (!isAway || upstream === undefined || upstream.isLocal || clock.now() >= until) throw error;
      if (isFirst)
        log.warn(
          { message: error.message, ...(error.hint && { hint: error.hint }), seconds: patience / 1000 },
          'no authority yet: the upstream authority is asked again',
        );
    }
    await sleep(clock, askEvery);
    upstream.hurry();
  }
}
