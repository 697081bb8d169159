/**
 * mutual.server.v1.Sync/Watch: the server's changes as they happen. A group of messages is gathered until it is complete
 * and applied whole, so that no reader ever sees half a change; then its position is acknowledged. A stream that stopped
 * without ending (a dead peer behind a living network) is found out by asking for the position now and then.
 */
import { Fault } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import { parseTrustDomain } from '../src/spiffe/id.ts';
import { caps, readBundle, readEntries, tooMany } from './authorized.ts';
import type { Cache, WorldChange } from './cache.ts';
import type { AgentHoldings } from './holdings.ts';
import type { ServerLink } from './link.ts';
import { readRevocations, type WireDeniedToken } from './revocations.ts';
import type { Position, WatchStream, WatchUpdate } from './server-api.ts';
import { why } from './why.ts';

export interface WatchPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly link: ServerLink;
  readonly cache: Cache;
  readonly holdings: () => AgentHoldings;
  /** Told when that may have changed, beside the cache's own changes. */
  readonly onHeld?: ((told: () => void) => () => void) | undefined;
  /** Takes a complete group. */
  apply(change: WorldChange): void;
  /** The agent is known to be up to date, though nothing changed. */
  upToDate(): void;
  /** Told of the stream when it is open, and of its end (undefined). */
  onStream(stream: Asking | undefined): void;
  readonly signal: AbortSignal;
}

/** A stream on which one can ask whether the agent is behind. */
export interface Asking {
  /** Resolves when everything is applied that was committed before the question, or when the stream has ended. */
  ask(): Promise<void>;
}

/** Milliseconds between two questions for the position, ±10 %. */
const checkEvery = 60_000;
/** Milliseconds for a change that the server has to arrive. */
const arrival = 10_000;

/** Follows the server until the stream ends: returns when the agent has a new connection, throws otherwise. */
export async function watchOnce(ports: WatchPorts): Promise<void> {
  const { link, cache } = ports;
  const stop = new AbortController();
  const moved = new Error('the connection was replaced');
  const unlisten = link.onRenewed(() => stop.abort(moved));
  const signal = AbortSignal.any([ports.signal, stop.signal]);
  const questions = openQuestions();
  let silent = (): void => {};
  const check = checkPosition(ports, signal, (fault) => stop.abort(fault));
  try {
    await link.call(async (api) => {
      const from = cache.position.logId === '' ? { position: 0n, logId: '' } : cache.position;
      const stream = api.watch(from, signal);
      ports.onStream({ ask: () => questions.ask(stream) });
      let group: Group | undefined;
      let isTelling = false;
      for await (const update of stream.updates) {
        group = gather(group, update, ports);
        if (!update.complete) continue;
        ports.apply(finish(group, update));
        group = undefined;
        stream.applied(update.position);
        if (!isTelling) silent = tellHoldings(ports, stream);
        isTelling = true;
        questions.answered(update.answer);
      }
      throw new Fault('peer/unavailable', 'the server ended the stream of changes');
    });
  } catch (error) {
    if (stop.signal.aborted && !ports.signal.aborted) {
      if (stop.signal.reason === moved) return;
      throw stop.signal.reason;
    }
    throw error;
  } finally {
    unlisten();
    silent();
    ports.onStream(undefined);
    questions.answered(Number.POSITIVE_INFINITY);
    stop.abort(moved);
    await check;
  }
}

/** Says what the agent holds, and says it again whenever that has changed; the returned function ends it. */
function tellHoldings({ cache, holdings, onHeld }: WatchPorts, stream: WatchStream): () => void {
  let said = '';
  let isDue = false;
  const tell = (): void => {
    isDue = false;
    const now = holdings();
    const text = JSON.stringify([now.x509, now.jwt, now.wit]);
    if (text === said) return;
    said = text;
    stream.holds(now);
  };
  tell();
  // Not before whoever else hears of this change has done what it asks for.
  const later = (): void => {
    if (!isDue) queueMicrotask(tell);
    isDue = true;
  };
  const ends = [cache.changes.onChange(later), onHeld?.(later)];
  return () => {
    for (const end of ends) end?.();
  };
}

function openQuestions() {
  let last = 0;
  const waiting = new Map<number, () => void>();
  return {
    ask(stream: WatchStream): Promise<void> {
      const id = ++last;
      stream.ask(id);
      return new Promise((resolve) => waiting.set(id, resolve));
    },
    /** Every question up to this one has its answer. */
    answered(latest: number): void {
      for (const [id, resolve] of waiting) {
        if (id > latest) return;
        waiting.delete(id);
        resolve();
      }
    },
  };
}

/** Messages of one group so far. Later ones win where they name the same thing. */
interface Group {
  readonly snapshot: boolean;
  readonly entries: Map<string, WorldChange['entries'][number]>;
  readonly removedEntries: Set<string>;
  readonly bundles: Map<string, WorldChange['bundles'][number]>;
  readonly removedDomains: Set<string>;
  isRevoking: boolean;
  readonly crls: Buffer[];
  readonly deniedTokens: WireDeniedToken[];
}

function gather(before: Group | undefined, update: WatchUpdate, { cache, log }: WatchPorts): Group {
  if (before !== undefined && before.snapshot !== update.snapshot) {
    throw new Fault('peer/unavailable', 'the server mixed a snapshot and changes in one group');
  }
  const group: Group = before ?? {
    snapshot: update.snapshot,
    entries: new Map(),
    removedEntries: new Set(),
    bundles: new Map(),
    removedDomains: new Set(),
    isRevoking: false,
    crls: [],
    deniedTokens: [],
  };
  const refused = (entry: string, error: unknown): void => log.warn({ entry, ...why(error) }, 'entry refused');
  for (const id of update.removedEntryIds) {
    group.entries.delete(id);
    group.removedEntries.add(id);
  }
  for (const entry of readEntries(update.entries, cache.trustDomain, refused)) {
    group.entries.set(entry.id, entry);
    group.removedEntries.delete(entry.id);
  }
  for (const domain of update.removedTrustDomains) {
    group.bundles.delete(domain);
    group.removedDomains.add(domain);
  }
  for (const wire of update.bundles) {
    const bundle = readBundle(wire);
    group.bundles.set(bundle.trustDomain, bundle);
    group.removedDomains.delete(bundle.trustDomain);
  }
  group.isRevoking ||= update.revocations;
  group.crls.push(...update.crls);
  group.deniedTokens.push(...update.deniedTokens);
  if (group.entries.size > caps.entries) throw tooMany('entries', group.entries.size, caps.entries);
  if (group.bundles.size > caps.bundles) throw tooMany('bundles', group.bundles.size, caps.bundles);
  return group;
}

const finish = (group: Group, { position, logId }: WatchUpdate): WorldChange => ({
  snapshot: group.snapshot,
  entries: [...group.entries.values()],
  removedEntryIds: [...group.removedEntries],
  bundles: [...group.bundles.values()],
  removedTrustDomains: [...group.removedDomains].map(parseTrustDomain),
  revocations: group.isRevoking ? readRevocations(group.crls, group.deniedTokens) : undefined,
  position,
  logId,
});

/** Asks for the server's position now and then; `fail` is called when no answer comes, or a change that should have come. */
async function checkPosition(ports: WatchPorts, signal: AbortSignal, fail: (fault: Fault) => void): Promise<void> {
  const { clock, random, link, cache, upToDate } = ports;
  try {
    // A stream that goes on from a position may be silent for long: ask at once whether that is right.
    for (let first = cache.position.logId !== ''; ; first = false) {
      if (!first) await sleep(clock, checkEvery * (0.9 + 0.2 * random.unit()), signal);
      const { position, logId } = await positionWhenConnected(link, signal);
      if (signal.aborted) return;
      if (logId !== cache.position.logId || position > cache.position.position) {
        await sleep(clock, arrival, signal);
        if (logId !== cache.position.logId || position > cache.position.position) {
          return fail(
            new Fault(
              'peer/unavailable',
              `the server is at change ${position}, its stream stopped at ${cache.position.position}`,
            ),
          );
        }
      }
      upToDate();
    }
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Fault && error.code === 'call/late') link.reconnect();
    fail(
      error instanceof Fault
        ? error
        : new Fault('system/failed', 'the position could not be asked for', { cause: error }),
    );
  }
}

/**
 * The server's position. Throws `call/late` when it does not answer in time; but while it has not taken the connection it is
 * asked again: after an outage it may have thousands of agents before this one, and who leaves the line stands at its end.
 */
async function positionWhenConnected(link: ServerLink, signal: AbortSignal): Promise<Position> {
  for (;;) {
    try {
      return await link.call((api) => api.position(arrival));
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== 'call/late' || !link.isWaiting || signal.aborted) throw error;
    }
  }
}
