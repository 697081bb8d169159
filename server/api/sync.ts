/**
 * mutual.server.v1.Sync: the push. An agent gets what it may hold once, then only what changed, within milliseconds of
 * the commit. It names the position it has reached, so that after a reconnect, to this server or another one on the same
 * database, it goes on without a snapshot while the log still holds that position.
 */
import { Fault } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { authorizedEntries, federatedDomains, mayHold, rootsOf } from '../entries/authorized.ts';
import { changesSince, rememberAliases, type Since } from '../entries/since.ts';
import type { Watcher, Watchers } from '../entries/watchers.ts';
import type { WireHoldings } from '../rotation/holdings.ts';
import type { StoredEntry, StoredNode } from '../store/store.ts';
import { agentRevoked } from './access.ts';
import type { Context } from './context.ts';
import { snapshotLine } from './snapshot-line.ts';
import { type Group, groupMessages, type Revocations } from './sync-group.ts';
import { wireRevocations } from './sync-revocations.ts';

interface WatchRequest {
  start?: { position: string; log_id: string } | null;
  applied?: { position: string } | null;
  ask?: { id: string } | null;
  holdings?: WireHoldings | null;
}

/** A resume further behind than this is cheaper as a snapshot. */
const mostChanges = 10_000;

/** @param logId names the database's log: positions of another one mean nothing here */
export function syncService(context: Context, watchers: Watchers, logId: string): Service {
  const { trustDomain, store, world, clock, rightsOf, recheck, log, holdings } = context;

  const since = changesSince(world, store.log, mostChanges, rememberAliases(world, mostChanges));
  const snapshots = snapshotLine(clock);

  /** What changed since `after`, or undefined when only a snapshot will do. */
  async function changedSince(after: number, node: StoredNode): Promise<Since | undefined> {
    // Another server may have told the agent what this one has not heard of yet. Only if the database has not heard of it
    // either is it a position that never was: it was restored from a backup.
    if (after > world.position) await world.reach(await store.log.position());
    if (!(after <= world.position)) return undefined;
    try {
      const changes = await since(after);
      return changes?.concerns(node.id) ? undefined : changes;
    } catch (error) {
      // Forgotten already, or another moment too late.
      if (error instanceof Fault && error.code === 'state/refused') return undefined;
      throw error;
    }
  }

  async function watch(requests: AsyncIterable<WatchRequest>, call: Call, send: (message: object) => Promise<void>) {
    const incoming = requests[Symbol.asyncIterator]();
    const first = await incoming.next();
    const start = first.done ? undefined : first.value.start;
    if (!start) throw new Fault('input/invalid', 'the first message must be a start');
    // A stream may be opened long before its first message: what the caller was then does not count.
    let node = (await recheck(call)).node as StoredNode;
    if (world.nodes.get(node.id)?.serial !== node.serial) {
      // It attested at another server, or renewed, a moment ago, and the database said so. What it is told now must not be
      // of before that: coming back from there it would be told everything again.
      await world.reach(await store.log.position());
      node = (await recheck(call)).node as StoredNode;
    }
    const serial = call.caller.kind === 'tls' ? call.caller.svid?.leaf.serial.toString() : undefined;

    const wake = signalled();
    const dirty = new Set<string>();
    const dirtyBundles = new Set<TrustDomain>();
    /** Whether a group is owed though nothing changed, and the question that it answers. */
    let owed = false;
    let answer = 0;
    let applied = 0;
    let dirtyRevocations = false;
    let ended = false;
    const { promise: stopped, resolve: stop, reject: fail } = Promise.withResolvers<void>();
    const stopping = new AbortController();
    const stopWith = (fault: Fault | undefined): void => {
      ended = true;
      if (fault) fail(fault);
      else stop();
      stopping.abort();
      wake.signal();
    };
    const watcher: Watcher = {
      node,
      entries(ids) {
        for (const id of ids) dirty.add(id);
        wake.signal();
      },
      bundle(domain) {
        dirtyBundles.add(domain);
        wake.signal();
      },
      revocations() {
        if (serial !== undefined && world.revocations.has(`serial:${serial}`)) return stopWith(agentRevoked());
        dirtyRevocations = true;
        wake.signal();
      },
      get applied() {
        return applied;
      },
      nodeChanged() {
        const now = world.nodes.get(node.id);
        if (!now)
          stopWith(new Fault('caller/denied', 'the agent is no longer attested', { reason: 'AGENT_NOT_ATTESTED' }));
        else if (now.serial === '')
          stopWith(new Fault('caller/denied', 'the agent is banned', { reason: 'AGENT_BANNED' }));
        // New selectors, new rights: the agent comes back and gets a snapshot. Likewise when it has another SVID now:
        // whoever still holds the old one is not let in again.
        else if (now.selectors.join() !== node.selectors.join()) stopWith(undefined);
        else if (now.serial !== serial && now.nextSerial !== serial) stopWith(undefined);
      },
      announce() {
        owed = true;
        wake.signal();
      },
    };
    const unwatch = watchers.add(watcher);
    const closed = holdings.opened(node.id);
    // It may have changed between the check and the watch.
    const known = world.nodes.get(node.id);
    if (known && known !== node) watcher.nodeChanged();
    const onGone = (): void => stopWith(undefined);
    call.signal.addEventListener('abort', onGone, { once: true });
    void (async () => {
      for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
        const { applied: reached, ask, holdings: held } = next.value;
        if (held) holdings.told(node.id, held);
        if (reached) {
          applied = Number(reached.position);
          log.trace({ agent: node.id, position: applied }, 'agent applied');
        }
        if (!ask) continue;
        try {
          // The database is asked, not this server's memory: another server may have committed what is asked about.
          await world.reach(await store.log.position());
        } catch (error) {
          if (!(error instanceof Fault) || error.code !== 'peer/unavailable') throw error;
          // Nobody can say whether the agent is behind. The stream is none the worse for it, and goes on.
          log.debug({ agent: node.id, message: error.message }, 'question of an agent not answered');
          continue;
        }
        answer = Number(ask.id);
        watcher.announce();
      }
    })().then(onGone, (error: unknown) => {
      log.debug({ agent: node.id, error }, 'stream of changes ended');
      onGone();
    });

    const held = new Set<string>();
    const domains = new Set<TrustDomain>([trustDomain]);
    try {
      // Not the work alone: it may be waiting for an agent that does not read.
      await Promise.race([work(start), stopped]);
      if (ended) await stopped;
    } finally {
      ended = true;
      unwatch();
      closed();
      call.signal.removeEventListener('abort', onGone);
    }

    async function work({ position: after, log_id }: { position: string; log_id: string }): Promise<void> {
      const resumed = log_id === logId ? await changedSince(Number(after), node) : undefined;
      const leave = resumed === undefined ? await snapshots(stopping.signal) : () => {};
      // Its rights may have ended meanwhile. Nothing may be told for a position at which they were others already.
      if (ended) return leave();
      // From here to the first message nothing waits: position, entries and bundles are of one moment.
      const entries = authorizedEntries(world, node);
      for (const entry of entries) held.add(entry.id);
      for (const domain of federatedDomains(entries)) domains.add(domain);
      if (resumed) {
        // What changed while the log was read is in `dirty`: the agent may hold it still, so it is told all the same.
        const parents = [...rootsOf(world, node), ...entries.map((entry) => entry.spiffeId)];
        const ids = new Set([...resumed.entries(node, parents), ...dirty]);
        dirty.clear();
        dirtyBundles.clear();
        const { entries: changed, removed } = split(ids, (entry) => held.has(entry.id));
        await transmit({ ...groupNow(false, changed, removed, domains), revocations: revocationsNow() });
      } else {
        dirty.clear();
        dirtyBundles.clear();
        await transmit({ ...groupNow(true, entries, [], domains), revocations: revocationsNow() }).finally(leave);
      }
      while (!ended) {
        const delta = takeDelta();
        if (delta) await transmit(delta);
        else await wake.next();
      }
    }

    function takeDelta(): Group | undefined {
      const ids = [...dirty];
      const bundles = new Set([...dirtyBundles].filter((domain) => domains.has(domain)));
      dirty.clear();
      dirtyBundles.clear();
      const { entries, removed } = split(ids, (entry) => mayHold(world, node, entry));
      const gone = removed.filter((id) => held.delete(id));
      for (const entry of entries) held.add(entry.id);
      for (const domain of federatedDomains(entries)) {
        if (!domains.has(domain)) bundles.add(domain);
        domains.add(domain);
      }
      const revocations = dirtyRevocations ? revocationsNow() : undefined;
      if (entries.length + gone.length + bundles.size === 0 && !revocations && !owed) return undefined;
      owed = false;
      return { ...groupNow(false, entries, gone, bundles), revocations };
    }

    /** All that is revoked: told whole, since it is little and changes rarely. */
    function revocationsNow(): Revocations {
      dirtyRevocations = false;
      return wireRevocations(world);
    }

    async function transmit(group: Group): Promise<void> {
      const answered = answer;
      answer = 0;
      for (const message of groupMessages(group, logId, answered)) {
        await send(message);
        if (ended) return;
      }
    }
  }

  function split(ids: Iterable<string>, allowed: (entry: StoredEntry) => boolean) {
    const entries: StoredEntry[] = [];
    const removed: string[] = [];
    for (const id of ids) {
      const entry = world.entries.get(id);
      if (entry && allowed(entry)) entries.push(entry);
      else removed.push(id);
    }
    return { entries, removed };
  }

  function groupNow(
    snapshot: boolean,
    entries: readonly StoredEntry[],
    removedEntryIds: readonly string[],
    domains: ReadonlySet<TrustDomain>,
  ): Group {
    return {
      position: world.position,
      snapshot,
      entries,
      removedEntryIds,
      bundles: [...domains].flatMap((domain) => world.bundles.get(domain) ?? []),
      removedTrustDomains: [...domains].filter((domain) => !world.bundles.has(domain)),
    };
  }

  return {
    name: 'mutual.server.v1.Sync',
    methods: {
      Watch: watch,
      Position(_: object, call: Call) {
        watchers.announce((rightsOf(call).node as StoredNode).id);
        return { position: world.position, log_id: logId };
      },
    },
  };
}

/** A flag that one reader waits for: signals while nobody waits are kept, and many count as one. */
function signalled() {
  let set = false;
  let resume: (() => void) | undefined;
  return {
    signal(): void {
      set = true;
      resume?.();
    },
    async next(): Promise<void> {
      if (!set) {
        await new Promise<void>((resolve) => {
          resume = resolve;
        });
      }
      set = false;
      resume = undefined;
    },
  };
}
