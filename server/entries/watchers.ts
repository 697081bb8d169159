/**
 * Who has to hear of a change: the agents that watch, indexed so that a change costs the agents concerned and not all
 * of them. A watcher only learns which entries and bundles to look at again; what it may hold is decided when it looks.
 */
import { type SpiffeId, serverId, type TrustDomain } from '../../src/spiffe/id.ts';
import { matches, type Selector } from '../../src/spiffe/selector.ts';
import type { Change, StoredEntry } from '../store/store.ts';
import { descendants, type NodeFacts } from './authorized.ts';
import type { World } from './world.ts';

/** What one agent's stream is told. */
export interface Watcher {
  readonly node: NodeFacts;
  /** Entries to look at again. */
  entries(ids: Iterable<string>): void;
  bundle(trustDomain: TrustDomain): void;
  /** Something was revoked, or a list signed. */
  revocations(): void;
  /** The position that the agent said it has applied. */
  readonly applied: number;
  /** The node's own record changed: its rights may be gone, its selectors others. */
  nodeChanged(): void;
  /** Somebody wants to see this stream reach the position the world has now. */
  announce(): void;
}

export interface Watchers {
  /** Starts telling; the returned function ends it. */
  add(watcher: Watcher): () => void;
  /**
   * Tells all whom this change concerns. The world has it already, and nothing that came after it.
   * @param old the entry that the change replaced or removed
   */
  tell(change: Change, old: StoredEntry | undefined): void;
  /** Lets the streams of one node say how far they are, though nothing concerned them. */
  announce(node: SpiffeId): void;
  all(): Iterable<Watcher>;
  readonly size: number;
}

export function watchers(world: World, trustDomain: TrustDomain): Watchers {
  const all = new Set<Watcher>();
  const byNode = new Map<SpiffeId, Set<Watcher>>();
  const bySelector = new Map<Selector, Set<Watcher>>();
  const server = serverId(trustDomain);

  function* havingAll(selectors: readonly Selector[]): Iterable<Watcher> {
    let fewest: ReadonlySet<Watcher> | undefined;
    for (const selector of selectors) {
      const having = bySelector.get(selector);
      if (!having) return;
      if (!fewest || having.size < fewest.size) fewest = having;
    }
    for (const watcher of fewest ?? []) {
      if (matches(selectors, new Set(watcher.node.selectors))) yield watcher;
    }
  }

  /** Watchers of the nodes that hold what hangs below `parent`. */
  function above(parent: SpiffeId): ReadonlySet<Watcher> {
    const found = new Set<Watcher>();
    const seen = new Set<SpiffeId>();
    const parents: SpiffeId[] = [parent];
    for (let next = parents.pop(); next !== undefined; next = parents.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      for (const watcher of byNode.get(next) ?? []) found.add(watcher);
      for (const entry of world.entriesOf(next)) {
        if (entry.parentId !== server) parents.push(entry.parentId);
        else for (const watcher of havingAll(entry.selectors)) found.add(watcher);
      }
    }
    return found;
  }

  function tellEntry(change: Change & { kind: 'entry' }, old: StoredEntry | undefined): void {
    const { before, entry } = change;
    const ids = new Set([change.id]);
    for (const id of [before?.spiffeId, entry?.spiffeId]) {
      if (id) for (const below of descendants(world, id)) ids.add(below.id);
    }
    const concerned = new Set<Watcher>();
    for (const one of [old, entry]) {
      if (!one) continue;
      // An alias came, went or changed its selectors: whoever matched it, or does now, gained or lost what hangs below.
      const found = one.parentId === server ? havingAll(one.selectors) : above(one.parentId);
      for (const watcher of found) concerned.add(watcher);
    }
    for (const watcher of concerned) watcher.entries(ids);
  }

  return {
    get size() {
      return all.size;
    },
    add(watcher) {
      all.add(watcher);
      const homes: Set<Watcher>[] = [];
      const put = <K>(map: Map<K, Set<Watcher>>, key: K): void => {
        const home = map.get(key) ?? new Set();
        map.set(key, home.add(watcher));
        homes.push(home);
      };
      put(byNode, watcher.node.id);
      for (const selector of watcher.node.selectors) put(bySelector, selector);
      return () => {
        all.delete(watcher);
        for (const home of homes) home.delete(watcher);
        if (byNode.get(watcher.node.id)?.size === 0) byNode.delete(watcher.node.id);
        for (const selector of watcher.node.selectors)
          if (bySelector.get(selector)?.size === 0) bySelector.delete(selector);
      };
    },
    all: () => all,
    announce(node) {
      for (const watcher of byNode.get(node) ?? []) watcher.announce();
    },
    tell(change, old) {
      if (change.kind === 'entry') tellEntry(change, old);
      else if (change.kind === 'bundle') for (const watcher of all) watcher.bundle(change.trustDomain);
      else if (change.kind === 'revocation' || change.kind === 'crl') for (const watcher of all) watcher.revocations();
      else if (change.kind === 'node') for (const watcher of byNode.get(change.id) ?? []) watcher.nodeChanged();
    },
  };
}
