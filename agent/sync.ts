/**
 * Keeping up with the server. A server with a change log pushes (watch.ts); one without is asked every few seconds
 * (SyncAuthorizedEntries, or GetAuthorizedEntries where that is all there is, then the bundles). Whoever needs to be sure
 * that the agent is not behind calls `catchUp`.
 */
import { Fault, Status } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import { type Backoff, backoffDelay } from '../src/run/backoff.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { type AuthorizedEntry, caps, readEntries, sameRevision, tooMany } from './authorized.ts';
import type { Cache, WorldChange } from './cache.ts';
import type { AgentHoldings } from './holdings.ts';
import type { ServerLink } from './link.ts';
import type { EntryRevision, ServerApi } from './server-api.ts';
import { type Asking, watchOnce } from './watch.ts';
import { why } from './why.ts';

export interface SyncStatus {
  readonly mode: 'push' | 'poll';
  /** Unix milliseconds of the last moment at which the agent was known to be up to date; 0 for never. */
  readonly lastSuccess: number;
  /** Why the server cannot be reached now. */
  readonly outage: Fault | undefined;
}

export interface Sync {
  status(): SyncStatus;
  /** Resolves when the world is known for the first time; rejects when that was refused for good. */
  readonly first: Promise<void>;
  /** Resolves when everything the server knew at the call is applied, after `ms` at the latest, or when it cannot be known. */
  catchUp(ms: number): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
}

export interface SyncPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly link: ServerLink;
  readonly cache: Cache;
  /** What the agent holds, for the server to count. */
  readonly holdings: () => AgentHoldings;
  /** Told when that may have changed, beside the cache's own changes. */
  readonly onHeld?: ((told: () => void) => () => void) | undefined;
  /** Milliseconds between polls. */
  readonly interval: number;
  /** Told when the server can be reached again. */
  readonly onReturn?: () => void;
}

/** Federated bundles asked for at once. */
const bundlesAtOnce = 10;
/** Reconnecting to a server that pushes. */
const pushBackoff: Backoff = { first: 250, most: 30_000, factor: 2 };
/** A stream that stood for less is not opened again at once, whatever its server says, milliseconds. */
const leastStanding = 1_000;
/** The least between two polls or connections, and between two questions on a stream, milliseconds. */
const spacing = { poll: 500, ask: 100 } as const;
/** Milliseconds after which a server that could only be polled is asked again whether it pushes. */
const askAgain = 10 * 60_000;

export function makeSync(ports: SyncPorts): Sync {
  const { clock, random, log, link, cache, interval } = ports;
  const first = Promise.withResolvers<void>();
  first.promise.catch(() => {});
  let mode: SyncStatus['mode'] = 'push';
  let lastSuccess = 0;
  let outage: Fault | undefined;
  let polls = 0;
  let failures = 0;
  let poked = false;
  let wake = (): void => {
    poked = true;
  };
  const applied = new Set<() => void>();

  const upToDate = (): void => {
    lastSuccess = clock.now();
    failures = 0;
    if (outage !== undefined) {
      outage = undefined;
      ports.onReturn?.();
    }
    first.resolve();
    for (const told of [...applied]) told();
  };
  const apply = (change: WorldChange): void => {
    cache.apply(change);
    upToDate();
  };

  /** What `work` gives, or undefined when that takes longer than `ms`. */
  const before = async <T>(ms: number, work: Promise<T>): Promise<T | undefined> => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const cancel = clock.after(ms, () => resolve(undefined));
    return Promise.race([work, promise]).finally(cancel);
  };

  /** Resolves when `done` says so after some application, or after `ms`. */
  const until = (done: () => boolean, ms: number): Promise<void> => {
    if (done() || ms <= 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = clock.after(ms, resolve);
    const check = (): void => {
      if (done()) resolve();
    };
    applied.add(check);
    return promise.finally(() => {
      applied.delete(check);
      cancel();
    });
  };

  /** Waits `ms`, or less when somebody needs to know sooner; but not at once over and over. */
  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    const woken = new AbortController();
    const started = clock.now();
    wake = () => woken.abort(new Error('woken'));
    try {
      if (!poked) await sleep(clock, ms, AbortSignal.any([signal, woken.signal]));
    } catch (error) {
      if (signal.aborted) throw error;
    } finally {
      wake = () => {
        poked = true;
      };
      poked = false;
    }
    await sleep(clock, Math.min(spacing.poll, ms) - (clock.now() - started), signal);
  };
  link.onRenewed(() => wake());

  const poll = async (signal: AbortSignal): Promise<void> => {
    // Whoever asked for it before it began is answered by it.
    poked = false;
    const world = await link.call((api) => readWorld(api, cache, log, signal));
    polls++;
    apply(world);
  };
  const onStream = (open: Asking | undefined): void => {
    stream = open;
    for (const told of [...applied]) told();
  };
  const failed = (error: unknown): void => {
    outage = error instanceof Fault ? error : new Fault('system/failed', 'synchronisation failed', { cause: error });
  };

  // One question for all who ask meanwhile; whoever comes during one needs the next. However many processes without an
  // identity ask, the server hears of it ten times a second.
  let stream: Asking | undefined;
  let asked: Promise<void> | undefined;
  let askedNext: Promise<void> | undefined;
  let askedAt = Number.NEGATIVE_INFINITY;
  const question = async (): Promise<void> => {
    const early = askedAt + spacing.ask - clock.now();
    if (early > 0) await sleep(clock, early);
    askedAt = clock.now();
    await stream?.ask();
  };
  const ask = (): Promise<void> => {
    if (asked === undefined) {
      asked = question().finally(() => {
        asked = undefined;
      });
      return asked;
    }
    askedNext ??= asked.then(() => {
      askedNext = undefined;
      return ask();
    });
    return askedNext;
  };

  const catchUp = async (ms: number): Promise<void> => {
    const deadline = clock.now() + ms;
    if (mode === 'poll') {
      // The poll under way may have read the server before the change that is looked for.
      const wanted = polls + (polling ? 2 : 1);
      wake();
      return until(() => polls >= wanted, ms);
    }
    // Without a stream there is nobody to ask: it is tried at once, and only a server that is there is waited for.
    if (stream === undefined) wake();
    if (stream === undefined && outage === undefined) await until(() => stream !== undefined, ms);
    if (stream !== undefined) await before(deadline - clock.now(), ask());
  };

  let polling = false;
  const pollFor = async (duration: number, signal: AbortSignal): Promise<void> => {
    const end = clock.now() + duration;
    failures = 0;
    while (clock.now() < end) {
      try {
        polling = true;
        await poll(signal);
      } catch (error) {
        signal.throwIfAborted();
        failures++;
        failed(error);
        log.warn({ ...why(error), failures }, 'entries not synchronised');
      } finally {
        polling = false;
      }
      const most = cache.svids.size === 0 ? Math.min(interval, 5_000) : Math.min(48 * interval, 8 * 60_000);
      const delay = backoffDelay(
        { first: interval, most: Math.max(most, interval), factor: 1.5 },
        failures,
        random.unit(),
      );
      await pause(delay, signal);
    }
  };

  return {
    status: () => ({ mode, lastSuccess, outage }),
    first: first.promise,
    catchUp,
    async run(signal) {
      for (;;) {
        const opened = clock.now();
        try {
          mode = 'push';
          poked = false;
          await watchOnce({
            clock,
            random,
            log,
            link,
            cache,
            holdings: ports.holdings,
            onHeld: ports.onHeld,
            apply,
            upToDate,
            onStream,
            signal,
          });
        } catch (error) {
          signal.throwIfAborted();
          if (error instanceof Fault && error.status === Status.UNIMPLEMENTED) {
            mode = 'poll';
            log.info({ interval }, 'server does not push, polling');
            await pollFor(askAgain, signal);
            continue;
          }
          const hint = error instanceof Fault ? error.retryAfterMs : undefined;
          if (hint === 0 && clock.now() - opened >= leastStanding) {
            log.debug(why(error), 'stream of changes moves to another connection');
            continue;
          }
          failures++;
          failed(error);
          log.warn({ ...why(error), failures }, 'stream of changes ended');
          // Half as long again at most: those who were sent away together do not come back together.
          const least = (hint ?? 0) * (1 + 0.5 * random.unit());
          await pause(Math.max(backoffDelay(pushBackoff, failures, random.unit()), least), signal);
        }
      }
    },
  };
}

/** Reads the whole world by asking: entries that changed, then every bundle they need. */
async function readWorld(api: ServerApi, cache: Cache, log: Log, signal: AbortSignal): Promise<WorldChange> {
  const entries = await authorizedEntries(api, cache, log, signal);
  const own = await api.bundle(cache.trustDomain);
  const wanted = [...new Set(entries.flatMap((entry) => entry.federatesWith))];
  if (wanted.length > caps.bundles) throw tooMany('federated trust domains', wanted.length, caps.bundles);
  const federated: Bundle[] = [];
  for (let start = 0; start < wanted.length; start += bundlesAtOnce) {
    const found = await Promise.all(
      wanted.slice(start, start + bundlesAtOnce).map((domain) => api.federatedBundle(domain)),
    );
    federated.push(...found.filter((bundle) => bundle !== undefined));
  }
  return {
    snapshot: true,
    entries,
    removedEntryIds: [],
    bundles: [own, ...federated],
    removedTrustDomains: [],
    position: 0n,
    logId: '',
  };
}

async function authorizedEntries(
  api: ServerApi,
  cache: Cache,
  log: Log,
  signal: AbortSignal,
): Promise<AuthorizedEntry[]> {
  const { entries, revisions } = await askEntries(api, cache, signal);
  const changed = readEntries(entries, cache.trustDomain, (entry, error) =>
    log.warn({ entry, ...why(error) }, 'entry refused'),
  );
  if (revisions === undefined) return changed;
  if (revisions.length > caps.entries) throw tooMany('entries', revisions.length, caps.entries);
  const fresh = new Map(changed.map((entry) => [entry.id, entry]));
  // An id with neither went away between the two questions, or its entry could not be read.
  return revisions.flatMap((revision) => fresh.get(revision.id) ?? heldAs(revision, cache) ?? []);
}

function heldAs(revision: EntryRevision, cache: Cache): AuthorizedEntry | undefined {
  const held = cache.entries.get(revision.id);
  return held !== undefined && sameRevision(held, revision) ? held : undefined;
}

async function askEntries(api: ServerApi, cache: Cache, signal: AbortSignal): ReturnType<ServerApi['syncEntries']> {
  try {
    return await api.syncEntries(
      (revisions) => revisions.filter((revision) => heldAs(revision, cache) === undefined).map(({ id }) => id),
      signal,
    );
  } catch (error) {
    if (!(error instanceof Fault) || error.status !== Status.UNIMPLEMENTED) throw error;
    return { entries: await api.authorizedEntries(), revisions: undefined };
  }
}
