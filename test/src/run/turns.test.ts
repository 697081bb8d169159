import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Turns, turns } from '../../../src/run/turns.ts';

/** Starts work that the test ends, and writes down when it begins. */
function worker(turn: Turns) {
  const began: string[] = [];
  const begin = (name: string, how: 'shared' | 'alone') => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const result = turn[how](() => {
      began.push(name);
      return promise;
    });
    return { result, end: () => resolve(name), fail: (error: Error) => reject(error) };
  };
  return { began, begin };
}
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('shared work runs side by side, and nothing beside what is alone', async () => {
  const { began, begin } = worker(turns());
  const a = begin('a', 'shared');
  const b = begin('b', 'shared');
  const alone = begin('alone', 'alone');
  const later = begin('later', 'shared');
  await settle();
  assert.deepEqual(began, ['a', 'b']);
  a.end();
  await settle();
  assert.deepEqual(began, ['a', 'b']);
  b.end();
  await settle();
  assert.deepEqual(began, ['a', 'b', 'alone']);
  alone.end();
  await settle();
  assert.deepEqual(began, ['a', 'b', 'alone', 'later']);
  later.end();
  assert.deepEqual(await Promise.all([a.result, b.result, alone.result, later.result]), ['a', 'b', 'alone', 'later']);
});

test('two that want to be alone are so one after the other', async () => {
  const { began, begin } = worker(turns());
  const first = begin('first', 'alone');
  const second = begin('second', 'alone');
  await settle();
  assert.deepEqual(began, ['first']);
  first.end();
  await settle();
  assert.deepEqual(began, ['first', 'second']);
  second.end();
  await second.result;
});

test('what fails, fails for who asked, and holds nobody up', async () => {
  const turn = turns();
  const { began, begin } = worker(turn);
  const shared = begin('shared', 'shared');
  const alone = begin('alone', 'alone');
  await settle();
  shared.fail(new Error('one'));
  await assert.rejects(shared.result, /one/);
  await settle();
  alone.fail(new Error('two'));
  await assert.rejects(alone.result, /two/);
  assert.equal(await turn.shared(() => 'next'), 'next');
  assert.deepEqual(began, ['shared', 'alone']);
});
