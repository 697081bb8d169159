/**
 * Which entries a node may hold: pure functions of the world. An entry belongs to a node when its parent is the node, or
 * a node alias whose selectors the node has, or the SPIFFE ID of an entry that itself belongs to the node.
 */
import { isMemberOf, type SpiffeId, serverId, type TrustDomain, trustDomainOf } from '../../src/spiffe/id.ts';
import { matches, type Selector } from '../../src/spiffe/selector.ts';
import type { StoredEntry } from '../store/store.ts';
import type { World } from './world.ts';

/** The part of a node that decides. */
export interface NodeFacts {
  readonly id: SpiffeId;
  readonly selectors: readonly Selector[];
}

/** The parents from which the node's entries hang: its own ID and those of the aliases whose selectors it has. */
export function rootsOf(world: World, node: NodeFacts): SpiffeId[] {
  const trustDomain = trustDomainOf(node.id);
  const roots = new Set<SpiffeId>([node.id]);
  const held = new Set(node.selectors);
  for (const alias of world.childrenOf(serverId(trustDomain))) {
    if (isMemberOf(alias.spiffeId, trustDomain) && matches(alias.selectors, held)) roots.add(alias.spiffeId);
  }
  return [...roots];
}

/** All entries the node may hold. Aliases themselves are not among them; entries for them are. */
export function authorizedEntries(world: World, node: NodeFacts): readonly StoredEntry[] {
  const trustDomain = trustDomainOf(node.id);
  const found = new Map<string, StoredEntry>();
  const parents = rootsOf(world, node);
  const seen = new Set(parents);
  for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
    for (const entry of world.childrenOf(parent)) {
      if (!isMemberOf(entry.spiffeId, trustDomain)) continue;
      found.set(entry.id, entry);
      if (!seen.has(entry.spiffeId)) {
        seen.add(entry.spiffeId);
        parents.push(entry.spiffeId);
      }
    }
  }
  return [...found.values()];
}

/** Whether the node may hold this one entry. */
export function mayHold(world: World, node: NodeFacts, entry: StoredEntry): boolean {
  return isMemberOf(entry.spiffeId, trustDomainOf(node.id)) && isAbove(world, node, entry.parentId);
}

/**
 * As `mayHold`, which it asks once for each node and parent and not once for each entry, until the world changes: below an
 * alias that a thousand join tokens gave to their nodes, each answer is a walk over a thousand entries.
 */
export function rememberingRights(world: World): (node: NodeFacts, entry: StoredEntry) => boolean {
  let at = -1;
  let known = new WeakMap<NodeFacts, Map<SpiffeId, boolean>>();
  return (node, entry) => {
    if (world.position !== at) {
      at = world.position;
      known = new WeakMap();
    }
    let parents = known.get(node);
    if (parents === undefined) {
      parents = new Map();
      known.set(node, parents);
    }
    let above = parents.get(entry.parentId);
    if (above === undefined) {
      above = isAbove(world, node, entry.parentId);
      parents.set(entry.parentId, above);
    }
    return above && isMemberOf(entry.spiffeId, trustDomainOf(node.id));
  };
}

/** Whether entries of this parent are the node's: walks from it up, so that it costs the depth and not the number. */
function isAbove(world: World, node: NodeFacts, parentId: SpiffeId): boolean {
  const trustDomain = trustDomainOf(node.id);
  const server = serverId(trustDomain);
  if (parentId === server) return false;
  const held = new Set(node.selectors);
  const seen = new Set<SpiffeId>();
  const parents: SpiffeId[] = [parentId];
  for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
    if (parent === node.id) return true;
    // A foreign ID is nobody's parent: whatever hangs on one is held by no node.
    if (seen.has(parent) || !isMemberOf(parent, trustDomain)) continue;
    seen.add(parent);
    for (const above of world.entriesOf(parent)) {
      if (above.parentId !== server) parents.push(above.parentId);
      else if (matches(above.selectors, held)) return true;
    }
  }
  return false;
}

/** Entries below `id`, the whole way down: whose authorisation can change with it. */
export function descendants(world: World, id: SpiffeId): readonly StoredEntry[] {
  const found = new Map<string, StoredEntry>();
  const seen = new Set<SpiffeId>([id]);
  const parents: SpiffeId[] = [id];
  for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
    for (const entry of world.childrenOf(parent)) {
      found.set(entry.id, entry);
      if (!seen.has(entry.spiffeId)) {
        seen.add(entry.spiffeId);
        parents.push(entry.spiffeId);
      }
    }
  }
  return [...found.values()];
}

/** The trust domains whose bundles a holder of these entries needs, its own aside. */
export function federatedDomains(entries: Iterable<StoredEntry>): ReadonlySet<TrustDomain> {
  const domains = new Set<TrustDomain>();
  for (const entry of entries) for (const domain of entry.federatesWith) domains.add(domain);
  return domains;
}
