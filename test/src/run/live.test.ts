import assert from 'node:assert/strict';
import { test } from 'node:test';
import { live } from '../../../src/run/live.ts';

test('readers hear of every later change until they leave, and the value is always the newest', () => {
  const value = live(1);
  const heard: number[] = [];
  const leave = value.onChange((now) => heard.push(now));
  value.set(2);
  assert.equal(value.value, 2);
  value.set(3);
  leave();
  value.set(4);
  assert.deepEqual(heard, [2, 3]);
});

test('a reader that throws keeps no other from hearing, and the writer learns of it', () => {
  const value = live(1);
  const heard: number[] = [];
  value.onChange(() => {
    throw new Error('broken reader');
  });
  value.onChange((now) => heard.push(now));
  assert.throws(() => value.set(2), /broken reader/);
  assert.deepEqual(heard, [2]);
  assert.equal(value.value, 2);
});

test('the same function may listen twice and leaves once at a time', () => {
  const value = live(0);
  let heard = 0;
  const count = (): void => {
    heard++;
  };
  const leave = value.onChange(count);
  value.onChange(count);
  value.set(1);
  leave();
  value.set(2);
  assert.equal(heard, 3);
});
