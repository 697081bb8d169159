import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bounded, oneAtATime } from '../../../server/store/bounded.ts';
import type { Ask } from '../../../server/store/operations.ts';
import { Fault } from '../../../src/errors.ts';

/** A database that answers when it is told to. */
function slow() {
  const open: PromiseWithResolvers<unknown>[] = [];
  const ask = (() => {
    open.push(Promise.withResolvers<unknown>());
    return open.at(-1)!.promise;
  }) as unknown as Ask;
  return { ask, open };
}
const full = (error: unknown): boolean =>
  error instanceof Fault &&
  error.code === 'peer/unavailable' &&
  /too slow: \d+ questions wait/.test(error.message) &&
  error.retryAfterMs === 5000;

test('what a slow database can not take is refused at once, a list by its length, and room is there again with each answer', async () => {
  const { ask, open } = slow();
  const ids = (count: number) => Array.from({ length: count }, (_, i) => `${i}`);
  const bound = bounded(ask, 10);
  const first = bound('deleteEntries', ids(8));
  const second = bound('getEntry', 'x');
  await assert.rejects(bound('deleteEntries', ids(2)), full);
  const third = bound('deleteEntries', []);
  await assert.rejects(bound('getEntry', 'y'), full);
  assert.equal(open.length, 3);
  open[1]!.resolve(undefined);
  await second;
  const fourth = bound('getEntry', 'y');
  // A question that failed waits no longer either.
  open[0]!.reject(new Error('broken'));
  await assert.rejects(first, /broken/);
  const fifth = bound('deleteEntries', ids(8));
  assert.equal(open.length, 5);
  for (const one of open) one.resolve(undefined);
  await Promise.all([third, fourth, fifth]);
});

test('a list longer than the bound is taken when nothing waits', async () => {
  const { ask, open } = slow();
  const bound = bounded(ask, 2);
  const taken = bound('deleteEntries', ['a', 'b', 'c']);
  await assert.rejects(bound('getEntry', 'x'), full);
  open[0]!.resolve([]);
  assert.deepEqual(await taken, []);
});

test('whoever asks while a question is under way gets its answer, and the next one is asked anew, also after a failure', async () => {
  const { ask, open } = slow();
  const ping = oneAtATime(() => ask('ping'));
  const both = [ping(), ping()];
  assert.equal(open.length, 1);
  open[0]!.reject(new Error('broken'));
  for (const one of both) await assert.rejects(one, /broken/);
  const again = ping();
  assert.equal(open.length, 2);
  open[1]!.resolve(undefined);
  await again;
});
