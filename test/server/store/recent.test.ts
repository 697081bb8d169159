import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type Recent, recentChanges } from '../../../server/store/recent.ts';
import type { Sized } from '../../../server/store/transaction.ts';

const change = (position: number, size = 1): Sized => ({
  change: { position, kind: 'federation', trustDomain: 'a.test' as never },
  size,
});
const read = (recent: Recent, after: number, limit = 100): number[] | undefined =>
  recent.read(after, limit)?.map((one) => one.position);

it('holds the newest changes by count and says when older ones are asked for', () => {
  const recent = recentChanges(10, 3);
  for (let position = 11; position <= 30; position += 1) recent.append([change(position)]);
  assert.deepEqual(read(recent, 27), [28, 29, 30]);
  assert.deepEqual(read(recent, 28, 1), [29]);
  assert.deepEqual(read(recent, 30), []);
  assert.equal(read(recent, 26), undefined);
});

it('holds the newest changes by size, none at all when one alone is too large', () => {
  const recent = recentChanges(0, 100, 10);
  recent.append([change(1, 4), change(2, 4), change(3, 4)]);
  assert.deepEqual(read(recent, 1), [2, 3]);
  assert.equal(read(recent, 0), undefined);
  recent.append([change(4, 99)]);
  assert.equal(read(recent, 3), undefined);
  assert.deepEqual(read(recent, 4), []);
});

it('skips what it knows and refuses what leaves a gap', () => {
  const recent = recentChanges(5);
  const told: number[] = [];
  recent.onAppend((position) => told.push(position));
  assert.equal(recent.append([change(5), change(6), change(7)]), true);
  assert.equal(recent.append([change(6), change(7)]), true);
  assert.equal(recent.append([change(9)]), false);
  assert.deepEqual(read(recent, 5), [6, 7]);
  assert.deepEqual(told, [7]);
});
