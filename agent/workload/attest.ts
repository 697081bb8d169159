/**
 * Who is calling: every method at once about one process, and then the question whether it is still that process. Only if
 * so does anything count; a pid that was given to another meanwhile gets nothing. A connection is attested once and again
 * only when the process's fingerprint has changed. A method that failed takes its own selectors away and no others; it is
 * asked again at the next call some seconds later.
 */
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { HeldProcess } from '../../src/rpc/unix-peer.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Selector, selectorSet } from '../../src/spiffe/selector.ts';
import { failures } from './failures.ts';
import type { WorkloadMethod } from './methods.ts';

/** Sorted, without doubles. */
export type Attested = readonly Selector[];

export interface WorkloadAttestor {
  /**
   * The selectors of a process, such as the one at the other end; the same array while nothing changed.
   * Throws `caller/denied` when the process is gone, `peer/unavailable` when no method could tell anything.
   */
  attest(peer: HeldProcess): Attested | Promise<Attested>;
}

/** Milliseconds for which an answer without the selectors of some method counts. */
const partialFor = 5_000;

interface Known {
  readonly fingerprint: string;
  readonly selectors: Attested;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

export function workloadAttestor(
  methods: readonly WorkloadMethod[],
  ports: { clock: Clock; log: Log },
): WorkloadAttestor {
  const failed = failures(ports.log, ports.clock);
  const known = new WeakMap<HeldProcess, Known>();
  const underWay = new WeakMap<HeldProcess, Promise<Attested>>();

  const fingerprintOf = (pid: number): string => methods.map((method) => method.fingerprint(pid)).join('\n');

  const anew = async (peer: HeldProcess): Promise<Attested> => {
    // A process may change while it is looked at (it may become another user): then what was found is a mixture.
    for (let attempt = 0; attempt < 3; attempt++) {
      const before = reading(peer, fingerprintOf);
      const { found, isWhole } = await askAll(peer);
      if (!peer.alive()) throw gone();
      if (reading(peer, fingerprintOf) !== before) continue;
      const selectors = selectorSet(found);
      const until = isWhole ? Number.POSITIVE_INFINITY : ports.clock.now() + partialFor;
      known.set(peer, { fingerprint: before, selectors, until });
      return selectors;
    }
    throw new Fault('peer/unavailable', 'the calling process keeps changing who it is', {
      hint: 'Connect once it has settled.',
    });
  };

  const askAll = async (peer: HeldProcess): Promise<{ found: Selector[]; isWhole: boolean }> => {
    const { pid } = peer;
    const answers = await Promise.allSettled(methods.map((method) => within(ports.clock, method, pid)));
    const found: Selector[] = [];
    let answered = 0;
    answers.forEach((answer, index) => {
      if (answer.status === 'fulfilled') {
        answered++;
        found.push(...answer.value);
      } else if (peer.alive()) failed(methods[index]!.name, pid, answer.reason);
    });
    if (answered === 0)
      throw new Fault('peer/unavailable', 'the agent could not find out what the calling process is', {
        hint: 'Its log says why.',
      });
    return { found, isWhole: answered === methods.length };
  };

  return {
    attest(peer) {
      if (peer.pid === 0) throw gone();
      const before = known.get(peer);
      if (before !== undefined) {
        const isSame = reading(peer, fingerprintOf) === before.fingerprint;
        // Asked last, as always: only now is it known whose fingerprint that was.
        if (!peer.alive()) throw gone();
        if (isSame && ports.clock.now() < before.until) return before.selectors;
      }
      const already = underWay.get(peer);
      if (already !== undefined) return already;
      const work = anew(peer).finally(() => underWay.delete(peer));
      underWay.set(peer, work);
      return work;
    },
  };
}

/** One method's answer, or the failure to give it in time. */
export async function within(clock: Clock, method: WorkloadMethod, pid: number): Promise<readonly Selector[]> {
  const controller = new AbortController();
  const late = new Fault('peer/unavailable', `${method.name} gave no answer within ${method.deadline} ms`);
  const { promise: tooLate, reject } = Promise.withResolvers<never>();
  tooLate.catch(() => {});
  const cancel = clock.after(method.deadline, () => {
    controller.abort(late);
    reject(late);
  });
  try {
    return await Promise.race([method.attest(pid, controller.signal), tooLate]);
  } finally {
    cancel();
  }
}

/** A fingerprint; a process that is gone has none. */
function reading(peer: HeldProcess, fingerprintOf: (pid: number) => string): string {
  try {
    return fingerprintOf(peer.pid);
  } catch (error) {
    if (!peer.alive()) throw gone();
    throw error;
  }
}

const gone = (): Fault => new Fault('caller/denied', 'no identity issued: the process that connected is gone');
