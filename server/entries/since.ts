/**
 * What has changed since a position, arranged so that many agents that come back from about the same position cost one
 * reading of the log, and each of them only what concerns it.
 *
 * An agent has to look again at an entry when the entry itself changed below something that the agent holds, or held, or
 * when a link above it changed. What it held before cannot be told from what it holds now, but lies below it by links that
 * there are now or that a change since then took away: walking down both finds no less than what it held, and nothing of
 * agents that no such link ever bound to it.
 */
import { type SpiffeId, serverId, trustDomainOf } from '../../src/spiffe/id.ts';
import { matches, type Selector } from '../../src/spiffe/selector.ts';
import type { Change, ChangeLog } from '../store/store.ts';
import { descendants, type NodeFacts } from './authorized.ts';
import type { FollowedWorld, World } from './world.ts';

export interface Since {
  /** Whether what this node is changed. */
  concerns(node: SpiffeId): boolean;
  /**
   * Entries to look at again for a node who holds these IDs: its own, those of the aliases it matches and those of its
   * entries.
   */
  entries(node: NodeFacts, held: Iterable<SpiffeId>): ReadonlySet<string>;
}

/** Digests kept: agents that lost one server come back from few positions. */
const mostKept = 32;
const page = 1000;

/** A digest that grows with the log. */
interface Digest extends Since {
  readonly reached: number;
  add(change: Change): void;
}

/** The selectors that the entry of a change had before; undefined when nobody here knows. */
export type OldSelectors = (position: number) => readonly Selector[] | undefined;

/**
 * Remembers what aliases that changed were for: the log does not say whom they matched.
 * @param most how many are remembered
 */
export function rememberAliases(world: Pick<FollowedWorld, 'onChange'>, most: number): OldSelectors {
  const kept = new Map<number, readonly Selector[]>();
  world.onChange((change, old) => {
    if (change.kind !== 'entry' || old === undefined || !isAlias(old.parentId)) return;
    kept.set(change.position, old.selectors);
    if (kept.size > most) kept.delete(kept.keys().next().value as number);
  });
  return (position) => kept.get(position);
}

/** @param most a position further back than this is answered with undefined: a snapshot is cheaper then */
export function changesSince(
  world: World,
  log: Pick<ChangeLog, 'read'>,
  most: number,
  oldSelectors: OldSelectors,
): (after: number) => Promise<Since | undefined> {
  const kept = new Map<number, Digest>();
  const growing = new Map<number, Promise<Digest>>();

  /** Reads on until the digest holds all that the world holds. Throws what the log says of forgotten changes. */
  async function grow(after: number): Promise<Digest> {
    const digest = kept.get(after) ?? emptyDigest(world, after, oldSelectors);
    while (digest.reached < world.position) {
      const changes = await log.read(digest.reached, page);
      for (const change of changes) {
        // What the world does not have yet is told when it has.
        if (change.position > world.position) break;
        digest.add(change);
      }
      if (changes.length === 0) break;
    }
    // The one used last is forgotten last.
    kept.delete(after);
    kept.set(after, digest);
    for (const oldest of kept.keys()) {
      if (kept.size <= mostKept) break;
      kept.delete(oldest);
    }
    return digest;
  }

  return async (after) => {
    if (world.position - after > most) return undefined;
    for (;;) {
      const running = growing.get(after);
      if (running === undefined) break;
      await running.catch(() => {});
    }
    const work = grow(after).finally(() => growing.delete(after));
    growing.set(after, work);
    return await work;
  };
}

function emptyDigest(world: World, after: number, oldSelectors: OldSelectors): Digest {
  let reached = after;
  const nodes = new Set<SpiffeId>();
  /** Changed entries by the parents they had and have. */
  const below = new Map<SpiffeId, Set<string>>();
  /** IDs of links that changed, and of what hangs below them: entries there count though they are as they were. */
  const loose = new Set<SpiffeId>();
  /** IDs that hung below an ID by an entry that is gone, or is another one now. */
  const lost = new Map<SpiffeId, Set<SpiffeId>>();
  /** IDs of aliases that are gone or others now, by one of the selectors that a node needed to have them. */
  const lostAliases = new Map<Selector, { id: SpiffeId; selectors: readonly Selector[] }[]>();
  /** Those of which nobody knows whose they were. */
  const anybodys = new Set<SpiffeId>();

  function lose(position: number, { spiffeId, parentId }: { spiffeId: SpiffeId; parentId: SpiffeId }): void {
    if (isAlias(parentId)) loseAlias(spiffeId, oldSelectors(position));
    else put(lost, parentId, spiffeId);
  }
  function loseAlias(id: SpiffeId, selectors: readonly Selector[] | undefined): void {
    const [one] = selectors ?? [];
    if (selectors === undefined || one === undefined) {
      anybodys.add(id);
      return;
    }
    const there = lostAliases.get(one);
    if (there) there.push({ id, selectors });
    else lostAliases.set(one, [{ id, selectors }]);
  }

  /** IDs that the node may have held besides what it holds now. */
  function heldBefore(node: NodeFacts, now: ReadonlySet<SpiffeId>): Set<SpiffeId> {
    const found = new Set<SpiffeId>();
    const find = (id: SpiffeId): void => {
      if (!now.has(id)) found.add(id);
    };
    const own = new Set(node.selectors);
    for (const id of anybodys) find(id);
    for (const selector of own)
      for (const { id, selectors } of lostAliases.get(selector) ?? []) if (matches(selectors, own)) find(id);
    for (const id of now) for (const under of lost.get(id) ?? []) find(under);
    // A set that grows is walked to its end.
    for (const id of found) {
      for (const under of lost.get(id) ?? []) find(under);
      for (const { spiffeId } of world.childrenOf(id)) find(spiffeId);
    }
    return found;
  }

  return {
    get reached() {
      return reached;
    },
    add(change) {
      reached = change.position;
      // A renewal, or what an agent says of its version, is no reason to tell it everything again.
      if (change.kind === 'node' && !change.keepsRights) nodes.add(change.id);
      if (change.kind !== 'entry') return;
      const { before, entry, id } = change;
      for (const parent of [before?.parentId, entry?.parentId]) if (parent) put(below, parent, id);
      if (before) lose(change.position, before);
      for (const link of new Set([before?.spiffeId, entry?.spiffeId])) {
        if (!link || loose.has(link)) continue;
        loose.add(link);
        for (const under of descendants(world, link)) loose.add(under.spiffeId);
      }
    },
    concerns: (node) => nodes.has(node),
    entries(node, held) {
      const now = new Set(held);
      const ids = new Set<string>();
      for (const holder of [now, heldBefore(node, now)])
        for (const id of holder) {
          for (const entry of below.get(id) ?? []) ids.add(entry);
          if (loose.has(id)) for (const entry of world.childrenOf(id)) ids.add(entry.id);
        }
      return ids;
    },
  };
}

/** Whether an entry with this parent is an alias of nodes. */
const isAlias = (parentId: SpiffeId): boolean => parentId === serverId(trustDomainOf(parentId));

function put<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const there = map.get(key);
  if (there) there.add(value);
  else map.set(key, new Set([value]));
}
