import assert from 'node:assert/strict';
import { test } from 'node:test';
import { watchClock } from '../../../src/run/clock-set.ts';
import { drivenClock } from '../../support/clock.ts';

const minute = 60_000;

test('a clock that is set forward or back, and a machine that slept, are told of by how much; time that passes is not', async () => {
  const clock = drivenClock();
  const ended = new AbortController();
  const told: number[] = [];
  const watch = watchClock(clock, ended.signal, (ms) => told.push(ms));
  await clock.advance(5 * minute);
  assert.deepEqual(told, []);
  clock.set(clock.now() + 120 * minute);
  await clock.advance(minute);
  clock.set(clock.now() - 30 * minute);
  await clock.advance(minute);
  clock.jump(10 * minute);
  await clock.advance(minute);
  clock.set(clock.now() + 3_000);
  await clock.advance(minute);
  assert.deepEqual(
    told.map((ms) => Math.round(ms / minute)),
    [120, -30, 10],
  );
  ended.abort(new Error('enough'));
  await assert.rejects(watch, /enough/);
});
