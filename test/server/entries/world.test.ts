/** The memory that follows the log: it holds what the store holds, whenever it began to follow. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { type FollowedWorld, followWorld } from '../../../server/entries/world.ts';
import { openStore } from '../../../server/store/open.ts';
import type { Change } from '../../../server/store/store.ts';
import { bundle, draft, id, node } from '../../suites/store.ts';

const store = await openStore({ url: 'sqlite::memory:' });
after(() => store.close());
const follow = () => followWorld(store, (error) => assert.fail(String(error)));

const places = ['/a', '/b', '/c'];
const write = fc.oneof(
  fc.record({
    do: fc.constant('create'),
    id: fc.constantFrom('e1', 'e2', 'e3', 'e4'),
    at: fc.constantFrom(...places),
    under: fc.constantFrom(...places),
  }),
  fc.record({
    do: fc.constant('update'),
    id: fc.constantFrom('e1', 'e2', 'e3', 'e4'),
    at: fc.constantFrom(...places),
    under: fc.constantFrom(...places),
  }),
  fc.record({ do: fc.constant('delete'), id: fc.constantFrom('e1', 'e2', 'e3', 'e4') }),
  fc.record({ do: fc.constant('attest'), at: fc.constantFrom(...places) }),
  fc.record({ do: fc.constant('evict'), at: fc.constantFrom(...places) }),
  fc.record({ do: fc.constant('bundle'), sequence: fc.bigInt(1n, 9n) }),
);
type Write = { do: string; id?: string; at?: string; under?: string; sequence?: bigint };

async function perform({ do: what, id: entry = '', at = '', under = '', sequence = 1n }: Write): Promise<unknown> {
  const agent = `/spire/agent/x509pop${at}`;
  switch (what) {
    case 'create':
      return store.entries.create([
        { draft: draft(at, { id: entry, parentId: id(under) }), stamp: { id: 'x', now: 1 } },
      ]);
    case 'update':
      return store.entries.update([{ id: entry, patch: { spiffeId: id(at), parentId: id(under) } }]);
    case 'delete':
      return store.entries.delete([entry]);
    case 'attest':
      return store.nodes.attest(node(agent));
    case 'evict':
      return store.nodes.delete(id(agent));
    default:
      return store.bundles.put(bundle('b.org', { sequence }), 'any');
  }
}

async function check(world: FollowedWorld): Promise<void> {
  const entries = await store.entries.scan(0, 1000);
  assert.deepEqual([...world.entriesAfter(0)], entries, 'entries, in order');
  assert.equal(world.entries.size, entries.length);
  for (const place of places) {
    const bySeq = (found: Iterable<{ seq: number }>) => [...found].sort((a, b) => a.seq - b.seq);
    assert.deepEqual(
      bySeq(world.childrenOf(id(place))),
      entries.filter(({ parentId }) => parentId === id(place)),
    );
    assert.deepEqual(
      bySeq(world.entriesOf(id(place))),
      entries.filter(({ spiffeId }) => spiffeId === id(place)),
    );
  }
  const middle = entries[Math.floor(entries.length / 2)]?.seq ?? 0;
  assert.deepEqual(
    [...world.entriesAfter(middle)],
    entries.filter(({ seq }) => seq > middle),
  );
  assert.deepEqual([...world.nodes.values()], await store.nodes.scan(0, 1000), 'nodes, in order of seq');
  assert.deepEqual([...world.bundles.values()], await store.bundles.list());
  assert.equal(world.position, await store.log.position());
}

test('it holds what the store holds, in the same order, also when it began while others wrote', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(write, { maxLength: 12 }),
      fc.array(write, { maxLength: 12 }),
      async (earlier, meanwhile) => {
        for (const one of earlier) await perform(one);
        const [world] = await Promise.all([follow(), ...meanwhile.map(perform)]);
        try {
          await world.reach();
          await check(world);
        } finally {
          world.close();
        }
      },
    ),
    { numRuns: 150 },
  );
});

test('whoever has written reads its own write after reach', async () => {
  const world = await follow();
  try {
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        await store.entries.create([
          { draft: draft(`/own-${index}`, { id: `own-${index}` }), stamp: { id: 'x', now: 1 } },
        ]);
        await world.reach();
        assert.ok(world.entries.has(`own-${index}`));
      }),
    );
  } finally {
    world.close();
  }
});

test('each change is told once, in order, at the moment when it and nothing after it is in memory', async () => {
  const world = await follow();
  const told: number[] = [];
  const stop = world.onChange((change: Change) => {
    told.push(change.position);
    assert.equal(world.position, change.position);
    if (change.kind === 'entry') assert.equal(world.entries.get(change.id), change.entry);
  });
  const before = world.position;
  await store.entries.create(
    ['a', 'b', 'c'].map((name) => ({
      draft: draft(`/told-${name}`, { id: `told-${name}` }),
      stamp: { id: 'x', now: 1 },
    })),
  );
  await store.entries.delete(['told-a', 'told-b']);
  await world.reach();
  assert.deepEqual(
    told,
    [1, 2, 3, 4, 5].map((step) => before + step),
  );
  stop();
  await store.entries.delete(['told-c']);
  await world.reach();
  assert.equal(told.length, 5);
  world.close();
  await store.nodes.attest(node('/spire/agent/x509pop/after-close'));
  assert.ok(!world.nodes.has(id('/spire/agent/x509pop/after-close')), 'a closed one follows no more');
});
