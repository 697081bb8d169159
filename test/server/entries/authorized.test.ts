/** Which entries a node may hold, against the definition spelled out as a fixed point over all entries. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  authorizedEntries,
  descendants,
  federatedDomains,
  mayHold,
  rememberingRights,
} from '../../../server/entries/authorized.ts';
import { emptyWorld } from '../../../server/entries/world.ts';
import type { StoredEntry } from '../../../server/store/store.ts';
import { parseId, parseTrustDomain, type SpiffeId } from '../../../src/spiffe/id.ts';
import { parseSelector, type Selector } from '../../../src/spiffe/selector.ts';
import { draft } from '../../suites/store.ts';

const own = parseTrustDomain('example.org');
const at = (path: string): SpiffeId => parseId(path.startsWith('spiffe:') ? path : `spiffe://${own}${path}`);
const server = at('/spire/server');
const node = at('/spire/agent/one');
const facts: Selector[] = ['x:1', 'x:2', 'x:3'].map(parseSelector);

function worldOf(entries: readonly { spiffeId: SpiffeId; parentId: SpiffeId; selectors: readonly Selector[] }[]) {
  const world = emptyWorld();
  entries.forEach((entry, index) => {
    world.putEntry({ ...draft('/any'), ...entry, id: `e${index}`, seq: index + 1, revision: 0, createdAt: 0 });
  });
  return world;
}

/** The definition: the least set closed under "its parent is the node, an alias of the node, or one already in it". */
function byDefinition(all: readonly StoredEntry[], selectors: readonly Selector[]): string[] {
  const isOwn = (id: SpiffeId): boolean => id === `spiffe://${own}` || id.startsWith(`spiffe://${own}/`);
  const parents = new Set<SpiffeId>([node]);
  for (const entry of all) {
    const isAlias = entry.parentId === server && entry.selectors.length > 0 && isOwn(entry.spiffeId);
    if (isAlias && entry.selectors.every((selector) => selectors.includes(selector))) parents.add(entry.spiffeId);
  }
  const held = new Set<StoredEntry>();
  for (let grown = true; grown; ) {
    grown = false;
    for (const entry of all) {
      if (held.has(entry) || !isOwn(entry.spiffeId) || entry.parentId === server) continue;
      if (!parents.has(entry.parentId)) continue;
      held.add(entry);
      parents.add(entry.spiffeId);
      grown = true;
    }
  }
  return [...held].map(({ id }) => id).sort();
}

const places = ['/a', '/b', '/c', '/d', '/alias-1', '/alias-2', 'spiffe://other.org/a'].map(at);
const anyEntry = fc.record({
  spiffeId: fc.constantFrom(...places),
  parentId: fc.constantFrom(...places, server, server, node, at('/spire/agent/two')),
  selectors: fc.uniqueArray(fc.constantFrom(...facts, parseSelector('x:4')), { minLength: 0, maxLength: 3 }),
});
const anySelectors = fc.subarray(facts);

test('over any entries, cycles and doubles and foreign IDs among them, a node holds exactly what the definition says', () => {
  fc.assert(
    fc.property(fc.array(anyEntry, { maxLength: 25 }), anySelectors, (entries, selectors) => {
      const world = worldOf(entries);
      const held = authorizedEntries(world, { id: node, selectors });
      assert.deepEqual(held.map(({ id }) => id).sort(), byDefinition([...world.entries.values()], selectors));
    }),
    { numRuns: 2000 },
  );
});

test('asking for one entry gives the same answer as asking for all', () => {
  fc.assert(
    fc.property(fc.array(anyEntry, { maxLength: 25 }), anySelectors, (entries, selectors) => {
      const world = worldOf(entries);
      const held = new Set(byDefinition([...world.entries.values()], selectors));
      for (const entry of world.entries.values()) {
        assert.equal(mayHold(world, { id: node, selectors }, entry), held.has(entry.id), entry.id);
      }
    }),
    { numRuns: 2000 },
  );
});

test('what is remembered is what would be found, until the world has changed and for each node by itself', () => {
  fc.assert(
    fc.property(
      fc.array(anyEntry, { maxLength: 12 }),
      fc.array(anyEntry, { maxLength: 4 }),
      anySelectors,
      (first, more, selectors) => {
        const world = worldOf(first);
        const holds = rememberingRights(world);
        const nodes = [
          { id: node, selectors },
          { id: node, selectors: [] },
          { id: at('/spire/agent/two'), selectors },
        ];
        const agree = (): void => {
          for (const one of nodes)
            for (const entry of world.entries.values())
              assert.equal(holds(one, entry), mayHold(world, one, entry), entry.id);
        };
        agree();
        for (const entry of worldOf(more).entries.values()) {
          world.deleteEntry(entry.id);
          world.putEntry({ ...entry, id: `${entry.id}-more`, seq: 1_000 + entry.seq });
        }
        world.position++;
        agree();
      },
    ),
    { numRuns: 500 },
  );
});

test('what hangs below an ID is everything reachable from it', () => {
  fc.assert(
    fc.property(fc.array(anyEntry, { maxLength: 25 }), fc.constantFrom(...places), (entries, from) => {
      const world = worldOf(entries);
      const reached = new Set<SpiffeId>([from]);
      const below = new Set<string>();
      for (let before = -1; before !== below.size; ) {
        before = below.size;
        for (const entry of world.entries.values()) {
          if (!reached.has(entry.parentId)) continue;
          below.add(entry.id);
          reached.add(entry.spiffeId);
        }
      }
      assert.deepEqual(
        descendants(world, from)
          .map(({ id }) => id)
          .sort(),
        [...below].sort(),
      );
    }),
    { numRuns: 1000 },
  );
});

test('an alias is not held, what hangs on it is, and an entry for the alias under the agent itself is', () => {
  const world = worldOf([
    { spiffeId: at('/alias-1'), parentId: server, selectors: [facts[0] as Selector] },
    { spiffeId: at('/web'), parentId: at('/alias-1'), selectors: [facts[0] as Selector] },
    { spiffeId: at('/alias-2'), parentId: node, selectors: [facts[0] as Selector] },
    { spiffeId: at('/db'), parentId: at('/alias-2'), selectors: [facts[0] as Selector] },
  ]);
  const held = (selectors: readonly Selector[]) =>
    authorizedEntries(world, { id: node, selectors })
      .map(({ id }) => id)
      .sort();
  assert.deepEqual(held(facts), ['e1', 'e2', 'e3']);
  assert.deepEqual(held([facts[1] as Selector]), ['e2', 'e3']);
});

test('the domains federated with are those of the entries given, each once', () => {
  const entries = [draft('/a', { federatesWith: [parseTrustDomain('b.org'), parseTrustDomain('c.org')] })];
  const stored = [...entries, ...entries].map((one) => ({ ...one, seq: 1, revision: 0, createdAt: 0 }));
  assert.deepEqual([...federatedDomains(stored)], ['b.org', 'c.org']);
});
