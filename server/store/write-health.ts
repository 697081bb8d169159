/**
 * Whether the database takes writes, as far as the last ones tell: a disk that is full or a database that became read-only
 * shows in no read. A failure counts for a while, or until a write has worked.
 */
import type { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';

export interface WriteHealth {
  worked(): void;
  /** Takes what a write failed with; only what the database is to blame for counts. */
  failed(fault: Fault): void;
  /** Throws the failure that counts now, if any. */
  check(): void;
}

/** Milliseconds for which a failure counts: nobody may write for long, and nothing else would take it back. */
const memory = 30_000;
/** A database that cannot be reached is not among them: a read finds that out, and when it is over. */
const toBlame: ReadonlySet<Fault['code']> = new Set(['system/failed', 'data/corrupt']);

export function writeHealth(clock: Clock): WriteHealth {
  let last: { readonly fault: Fault; readonly at: number } | undefined;
  return {
    worked() {
      last = undefined;
    },
    failed(fault) {
      if (toBlame.has(fault.code)) last = { fault, at: clock.now() };
    },
    check() {
      if (last !== undefined && clock.now() - last.at < memory) throw last.fault;
    },
  };
}
