/**
 * Identities of a process other than the caller, for the APIs that hand them to somebody who acts for it. Whoever asks has
 * been found to have that right before anything here runs.
 */
import { asFault, Fault } from '../../src/errors.ts';
import type { HeldProcess } from '../../src/rpc/unix-peer.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import type { WorkloadAttestor } from '../workload/attest.ts';
import type { Wakes } from './follow.ts';
import type { Material } from './messages.ts';

/** Somebody whose identities are asked for. */
export interface Subject {
  /** What it is entitled to, by what was found of it. */
  readonly identities: Identities;
  /** Throws `thing/missing` once it is gone: what it had is nobody's then. */
  check(): void;
  /** Of changes of the identities, and now and then to look whether it is gone. */
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

/** How often a subscription looks whether its process still runs, and what it is now, milliseconds. */
const lookEvery = 1_000;
const attestEvery = 5_000;
/** First messages wait this long for SVIDs on their way, milliseconds. */
const firstPatience = 10_000;

/** Somebody who is described by what an attestor would have found. */
export function described(selectors: readonly Selector[], cache: Cache): Subject {
  const identities = cache.identities(selectors);
  return { identities, check() {}, wakes: [identities.follow], close() {} };
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
    const entitled = shifting(ports.cache.identities(await ports.attestor.attest(held)));
    const attestAgain = async (): Promise<void> => {
      // A process that cannot be attested now stays what it was, unless it is gone, which the next look tells.
      const selectors = await Promise.resolve(held)
        .then(ports.attestor.attest)
        .catch(() => undefined);
      if (selectors !== undefined) entitled.set(ports.cache.identities(selectors));
    };
    return {
      get identities() {
        return entitled.now;
      },
      check,
      wakes: [
        entitled.wakes,
        (wake) => every(ports.clock, lookEvery, wake),
        () => every(ports.clock, attestEvery, () => void attestAgain()),
      ],
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

/** What may be handed to another, for messages that are made of identities. */
export function onBehalf(identities: Identities): Material {
  return {
    get entries() {
      return delegable(identities);
    },
    get federated() {
      const domains = new Set(delegable(identities).flatMap(({ federatesWith }) => federatesWith));
      return identities.federated.filter(({ trustDomain }) => domains.has(trustDomain));
    },
    memo: (name, make) => identities.memo(`on behalf: ${name}`, make),
  };
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

/** Calls `act` every `ms` milliseconds until the function that this gives is called. */
function every(clock: Clock, ms: number, act: () => void): () => void {
  let cancel = (): void => {};
  const again = (): void => {
    cancel = clock.after(ms, () => {
      again();
      act();
    });
  };
  again();
  return () => cancel();
}

/** Identities that may come to be those of other selectors while somebody follows them. */
export function shifting(first: Identities): { readonly now: Identities; set(next: Identities): void; wakes: Wakes } {
  let now = first;
  const shifts = new Set<() => void>();
  return {
    get now() {
      return now;
    },
    set(next) {
      if (next === now) return;
      now = next;
      for (const shift of [...shifts]) shift();
    },
    wakes(wake) {
      let unfollow = now.follow(wake);
      const shift = (): void => {
        unfollow();
        unfollow = now.follow(wake);
        wake();
      };
      shifts.add(shift);
      return () => {
        shifts.delete(shift);
        unfollow();
      };
    },
  };
}

const gone = (pid: number): Fault =>
  new Fault('thing/missing', `process ${pid} is gone`, { hint: 'Stop using what was handed out for it.' });
