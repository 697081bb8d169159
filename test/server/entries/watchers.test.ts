/** Whom a change costs something: the agents concerned, counted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { watchers } from '../../../server/entries/watchers.ts';
import { emptyWorld } from '../../../server/entries/world.ts';
import type { StoredEntry } from '../../../server/store/store.ts';
import { parseId, parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { draft } from '../../suites/store.ts';

const own = parseTrustDomain('example.org');
const at = (path: string) => parseId(`spiffe://${own}${path}`);

/** A thousand agents in ten zones, and what each was told; changes as the log would bring them. */
function scene() {
  const world = emptyWorld();
  const watching = watchers(world, own);
  const told = new Map<string, Set<string>>();
  const nodes = Array.from({ length: 1000 }, (_, index) => ({
    id: at(`/spire/agent/x509pop/${index}`),
    selectors: [`x:zone:${index % 10}`, `x:host:${index}`].map(parseSelector),
  }));
  for (const node of nodes) {
    watching.add({
      node,
      entries: (ids) => told.set(node.id, new Set([...(told.get(node.id) ?? []), ...ids])),
      bundle: () => assert.fail(),
      nodeChanged: () => assert.fail(),
      announce: () => assert.fail(),
      revocations: () => assert.fail(),
      applied: 0,
    });
  }
  let position = 0;
  return {
    nodes,
    /** Agents that were told something of `ids` by this change. */
    change(id: string, to: Pick<StoredEntry, 'spiffeId' | 'parentId' | 'selectors'> | undefined): string[] {
      told.clear();
      position += 1;
      const old = world.entries.get(id);
      const entry = to && { ...draft('/x'), ...to, id, revision: position, createdAt: 1, seq: old?.seq ?? position };
      const before = old && { spiffeId: old.spiffeId, parentId: old.parentId };
      const change = { kind: 'entry', position, id, entry, before } as const;
      world.apply(change);
      watching.tell(change, old);
      return [...told.keys()];
    },
    toldOf: (node: string) => [...(told.get(node) ?? [])].sort(),
  };
}

const alias = (path: string, ...selectors: string[]) => ({
  spiffeId: at(path),
  parentId: serverId(own),
  selectors: selectors.map(parseSelector),
});
const below = (path: string, parent: string) => ({
  spiffeId: at(path),
  parentId: parent as ReturnType<typeof at>,
  selectors: [parseSelector('unix:uid:1')],
});

test('an alias that comes, changes or goes is told to the agents that match it then or did before, and to no others', () => {
  const { change, toldOf, nodes } = scene();
  assert.equal(change('alias', alias('/zone', 'x:zone:1')).length, 100);
  assert.equal(change('work', below('/work', at('/zone'))).length, 100);
  assert.equal(change('alias', alias('/zone', 'x:zone:2')).length, 200, 'those that lose it and those that gain it');
  assert.deepEqual(toldOf(nodes[1]!.id), ['alias', 'work']);
  assert.deepEqual(toldOf(nodes[2]!.id), ['alias', 'work']);
  assert.equal(change('alias', alias('/zone', 'x:zone:2', 'x:host:2')).length, 100);
  assert.equal(change('alias', alias('/zone', 'x:host:2', 'x:host:3')).length, 1, 'nobody is two hosts');
  assert.equal(change('alias', alias('/zone', 'x:host:7')).length, 1);
  assert.equal(change('alias', undefined).length, 1);
});

test('an alias that becomes an entry of one node, or that did so, is told to both sides', () => {
  const { change, nodes } = scene();
  change('alias', alias('/zone', 'x:zone:1'));
  change('work', below('/work', at('/zone')));
  assert.equal(change('alias', below('/zone', nodes[5]!.id)).length, 101);
  assert.equal(change('alias', alias('/zone', 'x:zone:5')).length, 100);
});

test('an entry of one node costs one agent, however many watch', () => {
  const { change, nodes } = scene();
  assert.deepEqual(change('one', below('/one', nodes[3]!.id)), [nodes[3]!.id]);
  assert.deepEqual(change('one', below('/one', nodes[4]!.id)).sort(), [nodes[3]!.id, nodes[4]!.id]);
  assert.deepEqual(change('one', undefined), [nodes[4]!.id]);
});
