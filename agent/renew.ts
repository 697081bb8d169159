/**
 * X509-SVIDs of workloads, got before anybody asks: every wanted entry has one for its present revision, replaced with a
 * new key at half life. What is most urgent goes first, in batches; a batch that fails is tried smaller and later.
 */
import type { KeyType } from '../src/crypto/algorithms.ts';
import { asFault, Fault } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import { type Backoff, backoffDelay } from '../src/run/backoff.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { type AuthorizedEntry, sameRevision } from './authorized.ts';
import type { Cache } from './cache.ts';
import type { ServerLink } from './link.ts';
import { requestKey } from './request-key.ts';
import { isRevoked, type Revocations } from './revocations.ts';
import type { WorkloadSvid } from './state.ts';
import { chainsTo, readLeaf, soonerIfTainted, taintedAuthorities, takeSvid } from './svid.ts';
import { why } from './why.ts';

export interface RenewPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly link: ServerLink;
  readonly cache: Cache;
  readonly keyType: KeyType;
  readonly availabilityTarget: number | undefined;
}

export interface Renewal {
  /** Why SVIDs cannot be got now; undefined when the last request worked. */
  readonly outage: Fault | undefined;
  /** The server can be reached again: what failed is tried anew. */
  retry(): void;
  /** The clock was set, or the machine slept: what is due is looked at anew. */
  clockSet(): void;
  run(signal: AbortSignal): Promise<void>;
}

/** The server's limit on one call (spire-wire: signatures a second). */
const largestBatch = 500;
const smallestBatch = 1;
const backoff: Backoff = { first: 500, most: 4 * 60_000, factor: 1.5 };
/** While somebody waits for an SVID the server is not left alone for longer than this, milliseconds. */
const mostWithWaiting = 5_000;
/** Agents that find their server again begin within this, milliseconds. */
const spread = 2_000;
/** An entry that was refused an SVID is asked for again after this long, milliseconds. */
const refusedFor = 30_000;

export function makeRenewal(ports: RenewPorts): Renewal {
  const { clock, random, log, link, cache } = ports;
  let outage: Fault | undefined;
  let batchSize = largestBatch;
  let kicked = false;
  let wake: () => void = () => {};
  let hurry: () => void = () => {};
  /** Entries whose SVID is revoked, or a tainted authority has signed it. */
  const forced = new Set<string>();
  /** Entries that were refused an SVID; another revision of one may be asked for at once. */
  const refused = new Map<string, { readonly until: number; readonly revision: number; readonly createdAt: number }>();
  const refusedUntil = (entry: AuthorizedEntry): number | undefined => {
    const last = refused.get(entry.id);
    return last !== undefined && sameRevision(last, entry) ? last.until : undefined;
  };
  const handledTaints = new Set<string>();

  const kick = (): void => {
    kicked = true;
    wake();
  };
  cache.onWant(kick);
  link.onRenewed(kick);
  const onBundle = (bundle: Bundle): void => {
    const fresh = taintedAuthorities(bundle, handledTaints);
    if (fresh.size === 0) return;
    for (const { entryId, chain } of cache.svids.values()) if (chainsTo(chain, fresh)) forced.add(entryId);
    log.info({ count: forced.size }, 'authority tainted, SVIDs replaced');
    kick();
  };
  cache.ownBundle.onChange(onBundle);
  // A taint that came while the agent was being stopped: what was kept on disk may hang on it.
  onBundle(cache.ownBundle.value);

  const replaceRevoked = (revoked: Revocations): void => {
    let count = 0;
    for (const { entryId, chain } of cache.svids.values()) {
      if (!isRevoked(revoked, readLeaf(chain).serial)) continue;
      forced.add(entryId);
      count++;
    }
    if (count === 0) return;
    log.info({ count }, 'SVIDs revoked, replaced');
    kick();
  };
  cache.revocations.onChange(replaceRevoked);
  replaceRevoked(cache.revocations.value);

  /** Those that begin later than now, since the clock was ahead when they were issued: nobody will believe them before. */
  const replaceAhead = (): void => {
    for (const { entryId, notBefore } of cache.svids.values()) if (notBefore > clock.now()) forced.add(entryId);
  };
  replaceAhead();

  /** What an entry needs: undefined nothing; otherwise when the SVID it has ends, 0 for one that has none. */
  const urgency = (entry: AuthorizedEntry): number | undefined => {
    if ((refusedUntil(entry) ?? 0) > clock.now()) return undefined;
    const svid = cache.svids.get(entry.id);
    if (svid === undefined || svid.id !== entry.spiffeId) return 0;
    const due = !sameRevision(svid, entry) || forced.has(entry.id) || svid.renewAt <= clock.now();
    return due ? svid.notAfter : undefined;
  };

  const due = (): { batch: AuthorizedEntry[]; next: number } => {
    const found: { entry: AuthorizedEntry; ends: number }[] = [];
    let next = Number.POSITIVE_INFINITY;
    for (const id of cache.wanted) {
      const entry = cache.entries.get(id);
      if (entry === undefined) continue;
      const ends = urgency(entry);
      if (ends !== undefined) found.push({ entry, ends });
      else next = Math.min(next, refusedUntil(entry) ?? cache.svids.get(id)?.renewAt ?? next);
    }
    found.sort((one, other) => one.ends - other.ends);
    return { batch: found.slice(0, batchSize).map(({ entry }) => entry), next };
  };

  const request = async (batch: readonly AuthorizedEntry[], signal: AbortSignal): Promise<void> => {
    const asked = await Promise.all(
      batch.map(async (entry) => ({ entry, key: await requestKey(ports.keyType, entry.spiffeId) })),
    );
    const results = await link.call((api) =>
      api.newX509Svids(
        asked.map(({ entry, key }) => ({ entryId: entry.id, csr: key.csr })),
        signal,
      ),
    );
    const issued: WorkloadSvid[] = [];
    asked.forEach(({ entry, key }, index) => {
      const result =
        results[index] ?? new Fault('peer/unavailable', 'the server answered fewer SVIDs than were asked for');
      try {
        if (result instanceof Fault) throw result;
        const draw = { unit: random.unit(), availabilityTarget: ports.availabilityTarget };
        const taken = takeSvid(result.chain, key, draw, entry.spiffeId);
        const svid = soonerIfTainted(taken, handledTaints, { now: clock.now(), unit: draw.unit });
        issued.push({ ...svid, entryId: entry.id, revision: entry.revision, createdAt: entry.createdAt });
        refused.delete(entry.id);
        forced.delete(entry.id);
      } catch (error) {
        const fault = asFault(error);
        const { revision, createdAt } = entry;
        refused.set(entry.id, { until: clock.now() + refusedFor, revision, createdAt });
        cache.refuse([entry.id], fault);
        log.warn({ entry: entry.id, id: entry.spiffeId, ...why(fault) }, 'SVID refused');
      }
    });
    cache.putSvids(issued);
    if (issued.length > 0) log.debug({ count: issued.length }, 'SVIDs issued');
  };

  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    if (kicked) return;
    const woken = new AbortController();
    wake = () => woken.abort(new Error('woken'));
    const both = AbortSignal.any([signal, woken.signal]);
    try {
      // Nothing due for ever is still looked at once a day.
      await sleep(clock, Math.min(ms, 86_400_000), both);
    } catch (error) {
      if (signal.aborted) throw error;
    } finally {
      wake = () => {};
    }
  };

  /** The nearer the end of an SVID, the sooner another attempt; one that is not there at all is somebody's wait. */
  const mostDelay = (batch: readonly AuthorizedEntry[]): number => {
    const ends = Math.min(...batch.map((entry) => cache.svidFor(entry)?.notAfter ?? 0));
    return Math.min(Math.max((ends - clock.now()) / 2, mostWithWaiting), backoff.most);
  };

  /** Waits after a failure; the server's return ends it. */
  const rest = async (ms: number, signal: AbortSignal): Promise<void> => {
    const back = new AbortController();
    hurry = () => back.abort(new Error('the server is back'));
    try {
      await sleep(clock, ms, AbortSignal.any([signal, back.signal]));
    } catch (error) {
      if (signal.aborted) throw error;
      // Not all agents in the same moment.
      await sleep(clock, spread * random.unit(), signal);
    } finally {
      hurry = () => {};
    }
  };

  const forgetGone = (): void => {
    for (const id of refused.keys()) if (!cache.entries.has(id)) refused.delete(id);
    for (const id of forced) if (!cache.svids.has(id)) forced.delete(id);
  };

  return {
    get outage() {
      return outage;
    },
    retry: () => hurry(),
    clockSet() {
      // Until when they are refused was said in another time.
      refused.clear();
      replaceAhead();
      kick();
      hurry();
    },
    async run(signal) {
      for (let failures = 0; ; ) {
        kicked = false;
        const expiry = cache.expire();
        const { batch, next } = due();
        if (batch.length === 0) {
          forgetGone();
          await pause(Math.min(next, expiry) - clock.now(), signal);
          continue;
        }
        try {
          await request(batch, signal);
          outage = undefined;
          failures = 0;
          batchSize = Math.min(batchSize * 2, largestBatch);
        } catch (error) {
          signal.throwIfAborted();
          outage = asFault(error);
          failures++;
          batchSize = Math.max(Math.ceil(batch.length / 2), smallestBatch);
          log.warn({ count: batch.length, ...why(outage), failures }, 'SVIDs not issued');
          cache.refuse(
            batch.map(({ id }) => id),
            outage,
          );
          const delay = backoffDelay({ ...backoff, most: mostDelay(batch) }, failures, random.unit());
          // A server that says when it can is believed: asking sooner only adds to what it has to do.
          await rest(Math.max(delay, outage.retryAfterMs ?? 0), signal);
        }
      }
    },
  };
}
