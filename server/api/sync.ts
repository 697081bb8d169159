/**
 * mutual.server.v1.Sync: the push. An agent gets what it may hold once, then only what changed, within milliseconds of
 * the commit. It names the position it has reached, so that after a reconnect, to this server or another one on the same
 * database, it goes on without a snapshot while the log still holds that position.
 */
import { Fault } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { bundleToWire } from '../../src/wire/bundle.ts';
import { entryToWire } from '../../src/wire/entry.ts';
import { authorizedEntries, descendants, federatedDomains, mayHold } from '../entries/authorized.ts';
import type { Watcher, Watchers } from '../entries/watchers.ts';
import type { Change, StoredEntry, StoredNode } from '../store/store.ts';
import type { Context } from './context.ts';

interface WatchRequest {
  start?: { position: string; log_id: string } | null;
  applied?: { position: string } | null;
  ask?: { id: string } | null;
}

/** Stays well under a message of 1 MB, whatever the entries. */
const chunkBytes = 512 * 1024;
/** A resume further behind than this is cheaper as a snapshot. */
const mostChanges = 10_000;

/** @param logId names the database's log: positions of another one mean nothing here */
export function syncService(context: Context, watchers: Watchers, logId: string): Service {
  const { trustDomain, store, world, clock, rightsOf, log } = context;

  /** The entries that may differ since `after`, or undefined when only a snapshot will do. */
  async function changedSince(after: number, node: StoredNode): Promise<ReadonlySet<string> | undefined> {
    if (after > world.position || after + 1 < (await store.log.oldest())) return undefined;
    if (world.position - after > mostChanges) return undefined;
    const ids = new Set<string>();
    for (let at = after; at < world.position; ) {
      const changes = await store.log.read(at, 1000);
      const last = changes.at(-1);
      if (!last) break;
      for (const change of changes) {
        if (change.kind === 'node' && change.id === node.id) return undefined;
        if (change.kind === 'entry') for (const id of touched(change)) ids.add(id);
      }
      at = last.position;
    }
    return ids;
  }

  function* touched(change: Change & { kind: 'entry' }): Iterable<string> {
    yield change.id;
    for (const id of [change.before?.spiffeId, change.entry?.spiffeId]) {
      if (id) for (const below of descendants(world, id)) yield below.id;
    }
  }

  async function watch(requests: AsyncIterable<WatchRequest>, call: Call, send: (message: object) => Promise<void>) {
    const incoming = requests[Symbol.asyncIterator]();
    const first = await incoming.next();
    const start = first.done ? undefined : first.value.start;
    if (!start) throw new Fault('input/invalid', 'the first message must be a start');
    const node = rightsOf(call).node as StoredNode;

    const wake = signalled();
    const dirty = new Set<string>();
    const dirtyBundles = new Set<TrustDomain>();
    /** Whether a group is owed though nothing changed, and the question that it answers. */
    let owed = false;
    let answer = 0;
    let failure: Fault | undefined;
    let ended = false;
    const stopWith = (fault: Fault | undefined): void => {
      failure ??= fault;
      ended = true;
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
      nodeChanged() {
        const now = world.nodes.get(node.id);
        if (!now)
          stopWith(new Fault('caller/denied', 'the agent is no longer attested', { reason: 'AGENT_NOT_ATTESTED' }));
        else if (now.serial === '')
          stopWith(new Fault('caller/denied', 'the agent is banned', { reason: 'AGENT_BANNED' }));
        // New selectors, new rights: the agent comes back and gets a snapshot.
        else if (now.selectors.join() !== node.selectors.join()) stopWith(undefined);
      },
      announce() {
        owed = true;
        wake.signal();
      },
    };
    const unwatch = watchers.add(watcher);
    const leaf = call.caller.kind === 'tls' ? call.caller.svid?.leaf : undefined;
    const cancelExpiry = clock.after((leaf?.notAfter ?? 0) - clock.now(), () =>
      stopWith(new Fault('caller/denied', 'the agent SVID of this stream has expired', { reason: 'AGENT_EXPIRED' })),
    );
    const onGone = (): void => stopWith(undefined);
    call.signal.addEventListener('abort', onGone, { once: true });
    void (async () => {
      for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
        const { applied, ask } = next.value;
        if (applied) log.trace({ agent: node.id, position: applied.position }, 'agent applied');
        if (!ask) continue;
        // The database is asked, not this server's memory: another server may have committed what is asked about.
        await world.reach(await store.log.position());
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
      const resumed = start.log_id === logId ? await changedSince(Number(start.position), node) : undefined;
      // From here to the send nothing waits: position, entries and bundles are of one moment.
      const position = world.position;
      const entries = authorizedEntries(world, node);
      for (const entry of entries) held.add(entry.id);
      for (const domain of federatedDomains(entries)) domains.add(domain);
      const bundles = [...domains];
      if (resumed) {
        // What changed while the log was read is in `dirty`: the agent may hold it still, so it is told all the same.
        const ids = new Set([...resumed, ...dirty]);
        dirty.clear();
        await sendGroup({ position, snapshot: false, ...split(ids, (entry) => held.has(entry.id)), bundles });
      } else {
        await sendGroup({ position, snapshot: true, entries, removed: [], bundles });
      }
      while (!ended) {
        if (dirty.size === 0 && dirtyBundles.size === 0 && !owed) await wake.next();
        if (ended) break;
        const delta = takeDelta();
        if (delta) await sendGroup(delta);
      }
    } finally {
      unwatch();
      cancelExpiry();
      call.signal.removeEventListener('abort', onGone);
    }
    if (failure) throw failure;

    function takeDelta(): Group | undefined {
      const ids = [...dirty];
      const changedBundles = [...dirtyBundles].filter((domain) => domains.has(domain));
      dirty.clear();
      dirtyBundles.clear();
      const { entries, removed } = split(ids, (entry) => mayHold(world, node, entry));
      const gone = removed.filter((id) => held.delete(id));
      for (const entry of entries) held.add(entry.id);
      const bundles = new Set(changedBundles);
      for (const domain of federatedDomains(entries)) {
        if (!domains.has(domain)) bundles.add(domain);
        domains.add(domain);
      }
      if (entries.length + gone.length + bundles.size === 0 && !owed) return undefined;
      owed = false;
      return { position: world.position, snapshot: false, entries, removed: gone, bundles: [...bundles] };
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

    async function sendGroup(group: Group): Promise<void> {
      const { position, snapshot } = group;
      const head = { position, log_id: logId, snapshot };
      const answered = answer;
      answer = 0;
      const present = group.bundles.flatMap((domain) => world.bundles.get(domain) ?? []);
      const absent = group.bundles.filter((domain) => !world.bundles.has(domain));
      const last = {
        bundles: present.map((bundle) => bundleToWire(bundle)),
        removed_trust_domains: absent,
        removed_entry_ids: group.removed,
      };
      let chunk: object[] = [];
      let bytes = 0;
      for (const entry of group.entries) {
        chunk.push(entryToWire(entry));
        bytes += sizeOf(entry);
        if (bytes >= chunkBytes) {
          await send({ ...head, entries: chunk, complete: false });
          chunk = [];
          bytes = 0;
        }
      }
      await send({ ...head, ...last, entries: chunk, complete: true, answer: answered });
    }
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

interface Group {
  readonly position: number;
  readonly snapshot: boolean;
  readonly entries: readonly StoredEntry[];
  readonly removed: readonly string[];
  readonly bundles: readonly TrustDomain[];
}

/** A bound on the encoded size: every text at its worst, and room for tags and numbers. */
function sizeOf(entry: StoredEntry): number {
  let size = 200 + 2 * (entry.spiffeId.length + entry.parentId.length) + 3 * entry.hint.length;
  for (const text of [...entry.selectors, ...entry.dnsNames, ...entry.federatesWith]) size += 16 + 3 * text.length;
  return size;
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
