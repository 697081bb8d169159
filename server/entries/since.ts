/**
 * What has changed since a position, arranged so that many agents that come back from about the same position cost one
 * reading of the log, and each of them only what concerns it.
 *
 * An agent has to look again at an entry when the entry itself changed below something that the agent holds, or when a
 * link above it changed. Which links an agent held before cannot be told from what it holds now; so whatever hangs, or
 * hung, below a link that changed counts for everybody. Links change rarely.
 */
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { Change, ChangeLog } from '../store/store.ts';
import { descendants } from './authorized.ts';
import type { World } from './world.ts';

export interface Since {
  /** Whether what this node is changed. */
  concerns(node: SpiffeId): boolean;
  /**
   * Entries to look at again for one who holds these IDs: the node's own, those of the aliases it matches and those of
   * its entries.
   */
  entries(held: Iterable<SpiffeId>): ReadonlySet<string>;
}

/** Digests kept: agents that lost one server come back from few positions. */
const mostKept = 32;
const page = 1000;

/** A digest that grows with the log. */
interface Digest extends Since {
  readonly reached: number;
  add(change: Change): void;
}

/** @param most a position further back than this is answered with undefined: a snapshot is cheaper then */
export function changesSince(
  world: World,
  log: Pick<ChangeLog, 'read'>,
  most: number,
): (after: number) => Promise<Since | undefined> {
  const kept = new Map<number, Digest>();
  const growing = new Map<number, Promise<Digest>>();

  /** Reads on until the digest holds all that the world holds. Throws what the log says of forgotten changes. */
  async function grow(after: number): Promise<Digest> {
    const digest = kept.get(after) ?? emptyDigest(world, after);
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

function emptyDigest(world: World, after: number): Digest {
  let reached = after;
  const nodes = new Set<SpiffeId>();
  /** Changed entries by the parents they had and have. */
  const below = new Map<SpiffeId, Set<string>>();
  /** IDs of links that changed, and of what hangs below them. */
  const loose = new Set<SpiffeId>();
  const forAll = new Set<string>();

  function changed(id: string, parent: SpiffeId): void {
    if (loose.has(parent)) forAll.add(id);
    const there = below.get(parent);
    if (there) there.add(id);
    else below.set(parent, new Set([id]));
  }
  function loosen(id: SpiffeId): void {
    if (loose.has(id)) return;
    loose.add(id);
    for (const entry of below.get(id) ?? []) forAll.add(entry);
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
      for (const parent of [before?.parentId, entry?.parentId]) if (parent) changed(id, parent);
      for (const link of new Set([before?.spiffeId, entry?.spiffeId])) {
        if (!link) continue;
        loosen(link);
        for (const under of descendants(world, link)) {
          forAll.add(under.id);
          loosen(under.spiffeId);
        }
      }
    },
    concerns: (node) => nodes.has(node),
    entries(held) {
      const ids = new Set(forAll);
      for (const id of held) for (const entry of below.get(id) ?? []) ids.add(entry);
      return ids;
    },
  };
}
