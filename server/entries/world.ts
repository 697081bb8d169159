/**
 * The authorised world in memory: every entry, node and bundle of the trust domain, kept up to date by following the
 * change log (design: the log is the heart). Reads never touch the database; writes go to the store and are seen here
 * once `reach` has caught up with them.
 */
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import type { Loadable } from '../store/replica.ts';
import { revocationKey } from '../store/revocation-key.ts';
import type { Change, ChangeLog, Revocation, Store, StoredCrl, StoredEntry, StoredNode } from '../store/store.ts';

/** What a reader sees. Maps are live: take what is needed before the next wait. */
export interface World {
  readonly entries: ReadonlyMap<string, StoredEntry>;
  /** In the order of their seq: new ones are put last, and a node attested anew keeps its place. */
  readonly nodes: ReadonlyMap<SpiffeId, StoredNode>;
  readonly bundles: ReadonlyMap<TrustDomain, Bundle>;
  /** By `revocationKey`. */
  readonly revocations: ReadonlyMap<string, Revocation>;
  /** Revocation lists by authority. */
  readonly crls: ReadonlyMap<string, StoredCrl>;
  /** The log position this memory has reached. */
  readonly position: number;
  /** Entries whose parent is `id`, in no order. */
  childrenOf(id: SpiffeId): Iterable<StoredEntry>;
  /** Entries whose SPIFFE ID is `id`, in no order. */
  entriesOf(id: SpiffeId): Iterable<StoredEntry>;
  /** Entries in creation order with seq above `after`. */
  entriesAfter(after: number): Iterable<StoredEntry>;
}

/** The world with its connection to the log. */
export interface FollowedWorld extends World {
  /** Resolves when everything committed up to this call, and up to `position`, is in memory: read your own writes. */
  reach(position?: number): Promise<void>;
  /**
   * Told of each change when it, and nothing after it, has been applied: who is concerned by a link can only be found
   * while the links around it are as they were. `old` is the entry that the change replaced or removed, whole: the log
   * holds less of it. The returned function ends it.
   */
  onChange(told: (change: Change, old: StoredEntry | undefined) => void): () => void;
  /** Stops following. */
  close(): void;
}

const batch = 1000;

/** What `emptyWorld` makes. */
export type Memory = ReturnType<typeof emptyWorld>;

/** Reads everything. What is written meanwhile may be in it or not: `replay` from its position makes it whole. */
export async function loadWorld(from: Loadable): Promise<Memory> {
  const memory = emptyWorld();
  memory.position = await from.log.position();
  // All at once: in turn, each would wait for the way there and back.
  await Promise.all([
    scanAll(from.entries, (entry) => memory.putEntry(entry)),
    scanAll(from.nodes, (node) => void memory.nodes.set(node.id, node)),
    from.bundles.list().then((bundles) => {
      for (const bundle of bundles) memory.bundles.set(bundle.trustDomain, bundle);
    }),
    from.revocations.list().then((revoked) => {
      for (const one of revoked) memory.revocations.set(revocationKey(one), one);
    }),
    from.revocations.listCrls().then((crls) => {
      for (const crl of crls) memory.crls.set(crl.authority, crl);
    }),
  ]);
  return memory;
}

/** Reads a table page by page. */
async function scanAll<Row extends { readonly seq: number }>(
  table: { scan(after: number, limit: number): Promise<readonly Row[]> },
  take: (row: Row) => void,
): Promise<void> {
  for (let after = 0; ; ) {
    const page = await table.scan(after, batch);
    for (const row of page) take(row);
    if (page.length < batch) return;
    after = page[batch - 1]!.seq;
  }
}

/** Applies the log from where the memory is up to `until`, which may move on meanwhile. */
export async function replay(
  memory: Memory,
  log: Pick<ChangeLog, 'read'>,
  until: () => number,
  told?: (change: Change, old: StoredEntry | undefined) => void,
): Promise<void> {
  while (memory.position < until()) {
    const changes = await log.read(memory.position, batch);
    if (changes.length === 0) return;
    for (const change of changes) {
      const old = change.kind === 'entry' ? memory.entries.get(change.id) : undefined;
      memory.apply(change);
      memory.position = change.position;
      told?.(change, old);
    }
  }
}

/**
 * Loads everything and follows the log from then on.
 * @param loaded what was read already, from this store or from a copy of it
 */
export async function followWorld(
  store: Store,
  onFailure: (error: unknown) => void,
  loaded?: Memory,
): Promise<FollowedWorld> {
  const memory = loaded ?? (await loadWorld(store));

  const readers = new Set<Parameters<FollowedWorld['onChange']>[0]>();
  let known = memory.position;
  let running: Promise<void> | undefined;

  const tell = (change: Change, old: StoredEntry | undefined): void => {
    for (const reader of readers) reader(change, old);
  };
  function wake(): Promise<void> {
    running ??= replay(memory, store.log, () => known, tell).finally(() => {
      running = undefined;
    });
    return running;
  }
  const stop = store.log.onAppend((position) => {
    known = Math.max(known, position);
    wake().catch(onFailure);
  });
  known = Math.max(known, await store.log.position());
  await wake();
  // What was written during the scan has been put in twice, and the first time perhaps too early.
  const inOrder = [...memory.nodes.values()].sort((a, b) => a.seq - b.seq);
  memory.nodes.clear();
  for (const node of inOrder) memory.nodes.set(node.id, node);

  return Object.assign(memory, {
    async reach(position = 0) {
      known = Math.max(known, position);
      for (let before = -1; memory.position < known && memory.position !== before; ) {
        before = memory.position;
        await wake();
      }
    },
    onChange(told: (change: Change, old: StoredEntry | undefined) => void) {
      readers.add(told);
      return () => readers.delete(told);
    },
    close: stop,
  });
}

/** A world with the means to change it; also what tests fill by hand. */
export function emptyWorld() {
  const entries = new Map<string, StoredEntry>();
  const nodes = new Map<SpiffeId, StoredNode>();
  const bundles = new Map<TrustDomain, Bundle>();
  const revocations = new Map<string, Revocation>();
  const crls = new Map<string, StoredCrl>();
  const byParent: EntriesById = new Map();
  const byId: EntriesById = new Map();
  /** Ascending by seq. */
  const ordered: StoredEntry[] = [];

  function index(entry: StoredEntry): void {
    addTo(byParent, entry.parentId, entry);
    addTo(byId, entry.spiffeId, entry);
    const last = ordered.at(-1);
    if (!last || last.seq < entry.seq) ordered.push(entry);
    else ordered.splice(firstAtOrAfter(ordered, entry.seq), 0, entry);
  }
  function unindex(entry: StoredEntry): void {
    removeFrom(byParent, entry.parentId, entry);
    removeFrom(byId, entry.spiffeId, entry);
    const at = firstAtOrAfter(ordered, entry.seq);
    if (ordered[at] === entry) ordered.splice(at, 1);
  }
  const world = {
    entries,
    nodes,
    bundles,
    revocations,
    crls,
    position: 0,
    childrenOf: (id: SpiffeId): Iterable<StoredEntry> => under(byParent, id),
    entriesOf: (id: SpiffeId): Iterable<StoredEntry> => under(byId, id),
    *entriesAfter(after: number): Iterable<StoredEntry> {
      for (let at = firstAtOrAfter(ordered, after + 1); at < ordered.length; at++) yield ordered[at] as StoredEntry;
    },
    putEntry(entry: StoredEntry): void {
      share(entry, byParent);
      const before = entries.get(entry.id);
      if (
        before &&
        before.seq === entry.seq &&
        before.spiffeId === entry.spiffeId &&
        before.parentId === entry.parentId
      ) {
        replaceIn(byParent, entry.parentId, before, entry);
        replaceIn(byId, entry.spiffeId, before, entry);
        ordered[firstAtOrAfter(ordered, entry.seq)] = entry;
      } else {
        if (before) unindex(before);
        index(entry);
      }
      entries.set(entry.id, entry);
    },
    deleteEntry(id: string): void {
      const before = entries.get(id);
      if (!before) return;
      unindex(before);
      entries.delete(id);
    },
    apply(change: Change): void {
      if (change.kind === 'entry') {
        if (change.entry) world.putEntry(change.entry);
        else world.deleteEntry(change.id);
      } else if (change.kind === 'node') {
        if (change.node) nodes.set(change.id, change.node);
        else nodes.delete(change.id);
      } else if (change.kind === 'bundle') {
        if (change.bundle) bundles.set(change.trustDomain, change.bundle);
        else bundles.delete(change.trustDomain);
      } else if (change.kind === 'revocation') {
        if (change.revocation) revocations.set(change.key, change.revocation);
        else revocations.delete(change.key);
      } else if (change.kind === 'crl') {
        if (change.crl) crls.set(change.authority, change.crl);
        else crls.delete(change.authority);
      }
    },
  };
  return world;
}

function firstAtOrAfter(ordered: readonly StoredEntry[], seq: number): number {
  let low = 0;
  let high = ordered.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ordered[middle] as StoredEntry).seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Entries by an ID. Most IDs have one: a set for each of those would take more memory than the entry. */
type EntriesById = Map<SpiffeId, StoredEntry | Set<StoredEntry>>;

function under(map: EntriesById, key: SpiffeId): Iterable<StoredEntry> {
  const held = map.get(key);
  if (held === undefined) return [];
  return held instanceof Set ? held : [held];
}

function addTo(map: EntriesById, key: SpiffeId, entry: StoredEntry): void {
  const held = map.get(key);
  if (held === undefined) map.set(key, entry);
  else if (held instanceof Set) held.add(entry);
  else map.set(key, new Set([held, entry]));
}

function removeFrom(map: EntriesById, key: SpiffeId, entry: StoredEntry): void {
  const held = map.get(key);
  if (held instanceof Set) {
    held.delete(entry);
    if (held.size === 0) map.delete(key);
  } else if (held === entry) {
    map.delete(key);
  }
}

function replaceIn(map: EntriesById, key: SpiffeId, before: StoredEntry, after: StoredEntry): void {
  removeFrom(map, key, before);
  addTo(map, key, after);
}

const nobody: readonly never[] = [];

/**
 * What many entries have alike is held once: 250 bytes less of each, of 800. The entry itself is changed, equal as it stays:
 * the log's memory of its change holds it too.
 */
function share(entry: { -readonly [K in keyof StoredEntry]: StoredEntry[K] }, parents: EntriesById): void {
  const [sibling] = under(parents, entry.parentId);
  if (sibling !== undefined) entry.parentId = sibling.parentId;
  if (entry.federatesWith.length === 0) entry.federatesWith = nobody;
  if (entry.dnsNames.length === 0) entry.dnsNames = nobody;
}
