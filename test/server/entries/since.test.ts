import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { authorizedEntries, rootsOf } from '../../../server/entries/authorized.ts';
import { changesSince, rememberAliases } from '../../../server/entries/since.ts';
import { emptyWorld } from '../../../server/entries/world.ts';
import type { Change, StoredEntry } from '../../../server/store/store.ts';
import { parseId, type SpiffeId } from '../../../src/spiffe/id.ts';
import { draft } from '../../suites/store.ts';

const td = 'spiffe://example.org';
const node = { id: parseId(`${td}/spire/agent/x509pop/one`), selectors: ['x509pop:a:1'] as never };
const other = { id: parseId(`${td}/spire/agent/x509pop/two`), selectors: ['x509pop:b:1'] as never };
const server = parseId(`${td}/spire/server`);
const ids: readonly SpiffeId[] = [node.id, ...['/a', '/b', '/c', '/d'].map((path) => parseId(`${td}${path}`))];

/** A world with the log that made it. */
function scene(remembers = true) {
  const world = emptyWorld();
  const log: Change[] = [];
  const selectorsBefore = new Map<number, StoredEntry['selectors']>();
  let reads = 0;
  return {
    world,
    log,
    reads: () => reads,
    since: changesSince(
      world,
      {
        async read(after, limit) {
          reads += 1;
          return log.slice(after, after + limit);
        },
      },
      10_000,
      (position) => (remembers ? selectorsBefore.get(position) : undefined),
    ),
    /** @param of whose alias it is, where the parent is the server */
    put(id: string, spiffeId: SpiffeId | undefined, parentId: SpiffeId = node.id, of = node): void {
      const old = world.entries.get(id);
      if (old === undefined && spiffeId === undefined) return;
      const position = log.length + 1;
      const selectors = parentId === server ? of.selectors : (['unix:uid:1'] as never);
      const entry: StoredEntry | undefined = spiffeId && {
        ...draft('/x'),
        id,
        spiffeId,
        parentId,
        selectors,
        revision: position,
        createdAt: 1,
        seq: old?.seq ?? position,
      };
      const change: Change = {
        position,
        kind: 'entry',
        id,
        entry,
        before: old && { spiffeId: old.spiffeId, parentId: old.parentId },
      };
      log.push(change);
      if (old?.parentId === server) selectorsBefore.set(position, old.selectors);
      world.apply(change);
      world.position = position;
    },
  };
}

test('an agent that comes back is told whatever it gained, lost or holds in another revision, however links changed', async () => {
  const step = fc.record({
    id: fc.constantFrom('1', '2', '3', '4', '5', '6'),
    spiffeId: fc.option(fc.constantFrom(...ids.slice(1)), { nil: undefined }),
    parentId: fc.constantFrom(server, ...ids),
    of: fc.constantFrom(node, other),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 12 }),
      fc.array(step, { maxLength: 8 }),
      fc.array(step, { maxLength: 8 }),
      fc.boolean(),
      async (first, then, last, remembers) => {
        const { world, since, put, log } = scene(remembers);
        for (const { id, spiffeId, parentId, of } of first) put(id, spiffeId, parentId, of);
        const after = log.length;
        const before = new Map(authorizedEntries(world, node).map((entry) => [entry.id, entry.revision]));
        for (const { id, spiffeId, parentId, of } of then) put(id, spiffeId, parentId, of);
        // Somebody else came back meanwhile: what was digested then is gone on from.
        await since(after);
        for (const { id, spiffeId, parentId, of } of last) put(id, spiffeId, parentId, of);
        const now = authorizedEntries(world, node);
        const told = (await since(after))!.entries(node, [
          ...rootsOf(world, node),
          ...now.map((entry) => entry.spiffeId),
        ]);
        for (const { id, revision } of now)
          if (before.get(id) !== revision) assert.ok(told.has(id), `gained or changed ${id}`);
        const held = new Set(now.map(({ id }) => id));
        for (const id of before.keys()) if (!held.has(id)) assert.ok(told.has(id), `lost ${id}`);
      },
    ),
    { numRuns: 3000 },
  );
});

test('what went below an unchanged link, while a link above that went too, is told as lost', async () => {
  const { since, put } = scene();
  const [, a, b, c] = ids as [SpiffeId, SpiffeId, SpiffeId, SpiffeId];
  put('top', a, node.id);
  put('middle', b, a);
  put('leaf', c, b);
  put('leaf', undefined);
  put('top', undefined);
  assert.deepEqual([...(await since(3))!.entries(node, [node.id])].sort(), ['leaf', 'middle', 'top']);
});

test('changes of others are not told, and many agents cost one reading', async () => {
  const { since, put, reads } = scene();
  put('mine', ids[1], node.id);
  const others = Array.from({ length: 500 }, (_, i) => parseId(`${td}/spire/agent/x509pop/n${i}`));
  for (const [i, other] of others.entries()) put(`e${i}`, parseId(`${td}/w/${i}`), other);
  const mine = await since(1);
  assert.deepEqual([...mine!.entries(node, [node.id])], []);
  const read = reads();
  const found = await Promise.all(
    others.map(async (other) => (await since(1))!.entries({ id: other, selectors: [] }, [other]).size),
  );
  assert.ok(found.every((size) => size === 1));
  assert.equal(reads(), read);
  assert.equal(await since(-20_000), undefined);
});

/** What the digest tells a node that comes back from `after`. */
async function toldTo(made: ReturnType<typeof scene>, after: number, who: typeof node): Promise<string[]> {
  const held = authorizedEntries(made.world, who).map(({ spiffeId }) => spiffeId);
  return [...(await made.since(after))!.entries(who, [...rootsOf(made.world, who), ...held])].sort();
}

test('a link that came, went or moved is told with what hangs below it to those it bound, and to nobody else', async () => {
  const made = scene();
  const { put, log } = made;
  const [, a, b, c, d] = ids as [SpiffeId, SpiffeId, SpiffeId, SpiffeId, SpiffeId];
  put('link', a, node.id);
  for (let i = 0; i < 100; i += 1) put(`leaf-${i}`, parseId(`${td}/leaf/${i}`), a);
  put('theirs', b, other.id);
  put('their-leaf', c, b);
  const before = log.length;
  put('link', undefined);
  assert.equal((await toldTo(made, before, node)).length, 101);
  assert.deepEqual(await toldTo(made, before, other), []);
  // To the other one, which gains what the first one lost.
  const moved = log.length;
  put('link', a, other.id);
  assert.equal((await toldTo(made, moved, other)).length, 101);
  assert.deepEqual(await toldTo(made, moved, node), []);
  assert.equal((await toldTo(made, before, node)).length, 101);
  // By an alias, whose selectors say whose it is.
  put('alias', d, server, other);
  put('below', parseId(`${td}/below`), d);
  const aliased = log.length;
  put('alias', d, server, node);
  assert.deepEqual(await toldTo(made, aliased, node), ['below']);
  assert.deepEqual(await toldTo(made, aliased, other), ['below']);
  const gone = log.length;
  put('alias', undefined);
  assert.deepEqual(await toldTo(made, gone, node), ['below']);
  assert.deepEqual(await toldTo(made, gone, other), []);
});

test('an alias that changed before this server was there counts for everybody', async () => {
  const made = scene(false);
  const [, , , , d] = ids as [SpiffeId, SpiffeId, SpiffeId, SpiffeId, SpiffeId];
  made.put('alias', d, server, node);
  made.put('below', parseId(`${td}/below`), d);
  made.put('alias', undefined);
  for (const who of [node, other]) assert.deepEqual(await toldTo(made, 2, who), ['below']);
});

test('of aliases that changed the last ones are remembered, and of other entries nothing', () => {
  const told: ((change: Change, old: StoredEntry | undefined) => void)[] = [];
  const onChange = (tell: (typeof told)[number]) => {
    told.push(tell);
    return () => {};
  };
  const before = rememberAliases({ onChange }, 2);
  const entry = (parentId: SpiffeId): StoredEntry => ({
    ...{ ...draft('/x'), parentId, selectors: node.selectors },
    ...{ revision: 1, createdAt: 1, seq: 1 },
  });
  const change = (position: number): Change => ({
    position,
    kind: 'entry',
    id: 'x',
    entry: undefined,
    before: undefined,
  });
  told[0]!(change(1), entry(server));
  told[0]!(change(2), entry(node.id));
  told[0]!(change(3), undefined);
  told[0]!(change(4), entry(server));
  assert.deepEqual([1, 2, 3, 4].map(before), [node.selectors, undefined, undefined, node.selectors]);
  told[0]!(change(5), entry(server));
  assert.deepEqual([1, 4, 5].map(before), [undefined, node.selectors, node.selectors]);
});
