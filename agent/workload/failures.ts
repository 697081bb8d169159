/**
 * The log of attestation methods that fail. Every call of every workload may bring the same failure, and a caller may bring
 * on some at will: a method's failure of one kind is a warning once in a while, and between two of them a debug line.
 */
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';

/** Milliseconds between two warnings of one kind. */
const period = 10 * 60_000;

/** @returns tells the log that `method` failed for `pid` */
export function failures(log: Log, clock: Clock): (method: string, pid: number, error: unknown) => void {
  // As many as there are methods and codes of faults.
  const said = new Map<string, number>();
  return (method, pid, error) => {
    const key = `${method} ${error instanceof Fault ? error.code : 'defect'}`;
    const last = said.get(key);
    const now = clock.now();
    const fields = { method, pid, ...cause(error) };
    if (last !== undefined && now - last < period) return log.debug(fields, 'workload attestation failed');
    said.set(key, now);
    log.warn(fields, 'workload attestation failed');
  };
}

function cause(error: unknown): Record<string, unknown> {
  if (!(error instanceof Fault) || error.code === 'system/failed') return { err: error };
  const { message, code, hint, detail } = error;
  return { why: message, code, ...(hint !== undefined && { hint }), ...(detail !== undefined && { detail }) };
}
