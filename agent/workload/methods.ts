/** How the agent learns what a process is: one row a method. */
import type { Clock } from '../../src/run/clock.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { AgentOptions } from '../config.ts';
import { unixMethod } from './unix.ts';

export interface WorkloadMethod {
  readonly name: string;
  /** Milliseconds for one answer. */
  readonly deadline: number;
  /** The selectors of a process. Throws when it cannot be told what the process is. */
  attest(pid: number, signal: AbortSignal): Promise<readonly Selector[]>;
  /**
   * What would change if the selectors did, cheap enough to look at for each call. Throws when the process is gone.
   * A method whose answer depends on more than the process itself gives something that changes now and then.
   */
  fingerprint(pid: number): string;
}

/** The methods that the options ask for; `unix` always. */
export function workloadMethods(
  options: Pick<AgentOptions, 'workloadAttestors'>,
  clock: Clock,
): readonly WorkloadMethod[] {
  return [unixMethod(options.workloadAttestors.unix, clock)];
}
