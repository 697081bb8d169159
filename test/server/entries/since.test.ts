import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { authorizedEntries, rootsOf } from '../../../server/entries/authorized.ts';
import { changesSince } from '../../../server/entries/since.ts';
import { emptyWorld } from '../../../server/entries/world.ts';
import type { Change, StoredEntry } from '../../../server/store/store.ts';
import { parseId, type SpiffeId } from '../../../src/spiffe/id.ts';
import { draft } from '../../suites/store.ts';

const td = 'spiffe://example.org';
const node = { id: parseId(`${td}/spire/agent/x509pop/one`), selectors: ['x509pop:a:1'] as never };
const server = parseId(`${td}/spire/server`);
const ids: readonly SpiffeId[] = [node.id, ...['/a', '/b', '/c', '/d'].map((path) => parseId(`${td}${path}`))];

/** A world with the log that made it. */
function scene() {
  const world = emptyWorld();
  const log: Change[] = [];
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
    ),
    put(id: string, spiffeId: SpiffeId | undefined, parentId: SpiffeId = node.id): void {
      const old = world.entries.get(id);
      if (old === undefined && spiffeId === undefined) return;
      const position = log.length + 1;
      const selectors = parentId === server ? node.selectors : (['unix:uid:1'] as never);
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
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 12 }),
      fc.array(step, { maxLength: 8 }),
      fc.array(step, { maxLength: 8 }),
      async (first, then, last) => {
        const { world, since, put, log } = scene();
        for (const { id, spiffeId, parentId } of first) put(id, spiffeId, parentId);
        const after = log.length;
        const before = new Map(authorizedEntries(world, node).map((entry) => [entry.id, entry.revision]));
        for (const { id, spiffeId, parentId } of then) put(id, spiffeId, parentId);
        // Somebody else came back meanwhile: what was digested then is gone on from.
        await since(after);
        for (const { id, spiffeId, parentId } of last) put(id, spiffeId, parentId);
        const now = authorizedEntries(world, node);
        const told = (await since(after))!.entries([...rootsOf(world, node), ...now.map((entry) => entry.spiffeId)]);
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
  assert.deepEqual([...(await since(3))!.entries([node.id])].sort(), ['leaf', 'middle', 'top']);
});

test('changes of others are not told, and many agents cost one reading', async () => {
  const { since, put, reads } = scene();
  put('mine', ids[1], node.id);
  const others = Array.from({ length: 500 }, (_, i) => parseId(`${td}/spire/agent/x509pop/n${i}`));
  for (const [i, other] of others.entries()) put(`e${i}`, parseId(`${td}/w/${i}`), other);
  const mine = await since(1);
  assert.deepEqual([...mine!.entries([node.id])], []);
  const read = reads();
  const found = await Promise.all(others.map(async (other) => (await since(1))!.entries([other]).size));
  assert.ok(found.every((size) => size === 1));
  assert.equal(reads(), read);
  assert.equal(await since(-20_000), undefined);
});
