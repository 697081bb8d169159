/** How a command fails in words: a line `error: ...` for each fault, a line with what to do, and the exit code. */
import { asFault, Fault, faults } from '../src/errors.ts';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';

/** Prints what was thrown; gives the exit code. */
export function printFailure(thrown: unknown, ports: Ports): number {
  const all = thrown instanceof AggregateError ? thrown.errors : [thrown];
  let exit = 1;
  for (const each of all) {
    const fault = asFault(each);
    ports.err(`error: ${line(fault)}\n`);
    // A defect: the person at the terminal is the operator, so they see what there is.
    if (!(each instanceof Fault) && fault.detail !== undefined) ports.err(`${fault.detail}\n`);
    if (fault.hint !== undefined) ports.err(`hint: ${visible(fault.hint)}\n`);
    exit = Math.max(exit, faults[fault.code].exit);
  }
  return exit;
}

/** Further lines are indented, so that no text from elsewhere can pass for a line of ours. */
const line = (fault: Fault): string => visible(fault.message).replaceAll(/\n\s*/g, '\n  ');
