/**
 * SVIDs that no process asks for: of entries with `storeSvid`, put into stores when they are issued, when they or the
 * bundles change, and removed when their entry goes. What fails is tried again, later and later, and told meanwhile.
 */
import { asFault, Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { type Backoff, backoffDelay } from '../../src/run/backoff.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { Cache } from '../cache.ts';
import { why } from '../why.ts';
import type { Ledger } from './ledger.ts';
import { type Plan, plan, type Stores, type Work } from './plan.ts';
import type { Place, SvidStore } from './svid-store.ts';

export interface DeliveryPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly cache: Cache;
  readonly stores: Stores;
  readonly ledger: Ledger;
}

export interface Delivery {
  /** Secrets that lie in stores. */
  readonly stored: number;
  /** Throws the first of what is wrong now, with how many more there are. */
  check(): void;
  /** Delivers until the signal. */
  run(signal: AbortSignal): Promise<void>;
}

const backoff: Backoff = { first: 1_000, most: 5 * 60_000, factor: 2 };
/** Puts and removals at a time, and the longest that one may take, milliseconds. */
const atOnce = 8;
const longest = 30_000;

export function makeDelivery(ports: DeliveryPorts): Delivery {
  const { clock, random, log, cache, stores, ledger } = ports;
  /** What failed, by what was to be done. */
  const failed = new Map<string, { failures: number; until: number; fault: Fault }>();
  let faults: Plan['faults'] = new Map();
  /** How to let an entry's SVID go. */
  const kept = new Map<string, () => void>();
  let wake = (): void => {};
  let isChanged = true;
  const nameOf = ({ kind, key }: Work): string => `${kind} ${key}`;

  const keep = (wanted: ReadonlySet<string>): void => {
    for (const id of wanted) {
      // An entry that went and came back meanwhile is followed by nobody any more.
      if (kept.has(id) && cache.wanted.has(id)) continue;
      kept.get(id)?.();
      kept.set(id, cache.keep(id));
    }
    for (const [id, release] of kept) {
      if (wanted.has(id)) continue;
      release();
      kept.delete(id);
    }
  };
  const note = (next: Plan['faults']): void => {
    for (const [entry, fault] of next) {
      if (faults.get(entry)?.message !== fault.message) log.warn({ entry, ...why(fault) }, 'SVID not stored');
    }
    faults = next;
  };

  const doOne = async (work: Work, signal: AbortSignal): Promise<void> => {
    const { key, store, place } = work;
    const late = new AbortController();
    const cancel = clock.after(longest, () =>
      late.abort(new Fault('store/unavailable', `the store ${store.name} did not answer within ${longest / 1000} s`)),
    );
    const both = AbortSignal.any([signal, late.signal]);
    try {
      if (work.kind === 'remove') {
        await orAborted(removeOwn(store, place, both), both);
        await ledger.write([[key, undefined]]);
        log.info({ store: store.name, place: place.key, entry: work.stored.entryId }, 'stored SVID removed');
      } else {
        const { entry, digest } = work;
        const record = { entryId: entry.id, selectors: entry.selectors };
        // First, so that whatever comes of it is removed when the entry goes.
        if (ledger.stored.get(key)?.entryId !== entry.id) await ledger.write([[key, { ...record, digest: '' }]]);
        await orAborted(store.put(place, work.secret, both), both);
        await ledger.write([[key, { ...record, digest }]]);
        log.info({ store: store.name, place: place.key, entry: entry.id, id: entry.spiffeId }, 'SVID stored');
      }
      failed.delete(nameOf(work));
    } catch (error) {
      signal.throwIfAborted();
      const fault = asFault(late.signal.aborted ? late.signal.reason : error);
      const failures = (failed.get(nameOf(work))?.failures ?? 0) + 1;
      failed.set(nameOf(work), {
        failures,
        fault,
        until: clock.now() + backoffDelay(backoff, failures, random.unit()),
      });
      log.warn({ store: store.name, place: place.key, ...why(fault), failures }, `stored SVID not ${doing[work.kind]}`);
    } finally {
      cancel();
    }
  };

  /** Does what can be done now; when there is more to do (Unix milliseconds). */
  const round = async (signal: AbortSignal): Promise<number> => {
    const { work, wanted, faults: wrong } = plan(cache, stores, ledger.stored, clock.now());
    keep(wanted);
    note(wrong);
    const names = new Set(work.map(nameOf));
    for (const name of failed.keys()) if (!names.has(name)) failed.delete(name);
    const due = work.filter((one) => (failed.get(nameOf(one))?.until ?? 0) <= clock.now());
    for (let start = 0; start < due.length; start += atOnce)
      await Promise.all(due.slice(start, start + atOnce).map((one) => doOne(one, signal)));
    return Math.min(...[...failed.values()].map(({ until }) => until));
  };

  return {
    get stored() {
      return ledger.stored.size;
    },
    check() {
      const notIssued = [...kept.keys()].flatMap((id) => cache.refusal(id) ?? []);
      const all = [...faults.values(), ...[...failed.values()].map(({ fault }) => fault), ...notIssued];
      if (all.length === 0) return;
      const more = all.length === 1 ? '' : `, and ${all.length - 1} more`;
      throw new Fault(all[0]!.code, `${all[0]!.message}${more}`, { hint: all[0]!.hint ?? '' });
    },
    async run(signal) {
      const unlisten = cache.changes.onChange(() => {
        isChanged = true;
        wake();
      });
      try {
        for (;;) {
          isChanged = false;
          const next = await round(signal);
          if (!isChanged) await pause(next - clock.now(), signal);
        }
      } finally {
        unlisten();
        for (const { store } of stores.values()) store.close();
      }
    },
  };

  /** Resolves after `ms`, or when something changed. */
  function pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const end = (settle: () => void): void => {
        cancel();
        wake = () => {};
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      const onAbort = (): void => end(() => reject(signal.reason));
      const cancel = ms < Number.POSITIVE_INFINITY ? clock.after(ms, () => end(resolve)) : () => {};
      wake = () => end(resolve);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}

const doing = { put: 'put', remove: 'removed' } as const;

/** Removes what agents put; what is there without having been put by one is not this entry's, and stays. */
async function removeOwn(store: SvidStore, place: Place, signal: AbortSignal): Promise<void> {
  try {
    await store.remove(place, signal);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'store/foreign') throw error;
  }
}

/** Work that does not heed its signal is not waited for. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    work.then(resolve, reject);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
