/**
 * Identities of a process other than the caller, for the APIs that hand them to somebody who acts for it. Whoever asks has
 * been found to have that right before anything here runs.
 */
import { asFault, Fault } from '../../src/errors.ts';
import type { HeldProcess } from '../../src/rpc/unix-peer.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache, Identities } from '../cache.ts';
import type { WorkloadAttestor } from '../workload/attest.ts';
import type { Wakes } from './follow.ts';

/** Somebody whose identities are asked for. */
export interface Subject {
  readonly identities: Identities;
  /** Throws `thing/missing` once the process is gone: what it had is nobody's then. */
  check(): void;
  /** Looks now and then whether it is. */
  readonly wakes: readonly Wakes[];
  close(): void;
}

export interface SubjectPorts {
  readonly attestor: WorkloadAttestor;
  readonly cache: Cache;
  readonly clock: Clock;
  /** Holds a process by its pid; throws `thing/missing`. */
  holdProcess(pid: number): HeldProcess;
}

/** How often a subscription looks whether its process still runs, milliseconds. */
const lookEvery = 1_000;
/** First messages wait this long for SVIDs on their way, milliseconds. */
const firstPatience = 10_000;

/** Somebody who is described by what an attestor would have found. */
export function described(selectors: readonly Selector[], cache: Cache): Subject {
  return { identities: cache.identities(selectors), check() {}, wakes: [], close() {} };
}

/**
 * The process that has this pid now. It is held before it is looked at and asked after once it was, so what was found is
 * about one process; whether that is the one which was meant is for the asker to know. Throws `thing/missing`.
 */
export async function processSubject(pid: number, ports: SubjectPorts): Promise<Subject> {
  const held = ports.holdProcess(pid);
  const check = (): void => {
    if (!held.alive()) throw gone(pid);
  };
  try {
    const selectors = await ports.attestor.attest(held);
    return {
      identities: ports.cache.identities(selectors),
      check,
      wakes: [every(ports.clock, lookEvery)],
      close: () => held.close(),
    };
  } catch (error) {
    try {
      check();
      throw asFault(error);
    } finally {
      held.close();
    }
  }
}

/** Entries whose identity may be handed to another: never one with rights over the server. */
export function delegable({ entries }: Identities): readonly AuthorizedEntry[] {
  return entries.some(isPrivileged) ? entries.filter((entry) => !isPrivileged(entry)) : entries;
}
const isPrivileged = ({ admin, downstream }: AuthorizedEntry): boolean => admin || downstream;

/** Wakes once more when a first message has waited long enough. */
export const patience =
  (clock: Clock): Wakes =>
  (wake) =>
    clock.after(firstPatience, wake);

/** Whether a first message has to wait: for SVIDs that are on their way, and within reason. */
export function waits(subject: Subject, cache: Cache, started: number, now: number): boolean {
  if (now - started >= firstPatience) return false;
  return delegable(subject.identities).some(
    (entry) => cache.svidFor(entry) === undefined && cache.refusal(entry.id) === undefined,
  );
}

function every(clock: Clock, ms: number): Wakes {
  return (wake) => {
    let cancel = (): void => {};
    const again = (): void => {
      cancel = clock.after(ms, () => {
        again();
        wake();
      });
    };
    again();
    return () => cancel();
  };
}

const gone = (pid: number): Fault =>
  new Fault('thing/missing', `process ${pid} is gone`, { hint: 'Stop using what was handed out for it.' });
