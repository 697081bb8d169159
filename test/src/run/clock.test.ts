import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep } from '../../../src/run/clock.ts';
import { drivenClock } from '../../support/clock.ts';

test('a driven clock fires timers in order of time, then of making, each at its own time', async () => {
  const clock = drivenClock(1000);
  const fired: [string, number][] = [];
  clock.after(20, () => fired.push(['c', clock.now()]));
  clock.after(10, () => fired.push(['a', clock.now()]));
  clock.after(10, () => {
    fired.push(['b', clock.now()]);
    clock.after(5, () => fired.push(['b later', clock.now()]));
  });
  clock.after(100, () => fired.push(['never', clock.now()]));
  await clock.advance(30);
  assert.deepEqual(fired, [
    ['a', 1010],
    ['b', 1010],
    ['b later', 1015],
    ['c', 1020],
  ]);
  assert.equal(clock.now(), 1030);
  assert.equal(clock.waiting, 1);
});

test('a driven clock lets what waits for a timer set the next one', async () => {
  const clock = drivenClock(0);
  const woke: number[] = [];
  const loop = (async () => {
    for (let turn = 0; turn < 3; turn++) {
      await sleep(clock, 10);
      woke.push(clock.now());
    }
  })();
  await clock.advance(30);
  await loop;
  assert.deepEqual(woke, [10, 20, 30]);
});

test('a cancelled timer does not fire', async () => {
  const clock = drivenClock(0);
  clock.after(1, () => assert.fail('fired'))();
  await clock.advance(10);
});

test('a sleep ends with the reason of its signal, and its timer goes with it', async () => {
  const clock = drivenClock(0);
  const controller = new AbortController();
  const slept = sleep(clock, 1000, controller.signal);
  controller.abort(new Error('enough'));
  await assert.rejects(slept, /enough/);
  assert.equal(clock.waiting, 0);
  await assert.rejects(sleep(clock, 1000, controller.signal), /enough/);
  assert.equal(clock.waiting, 0);
});

test('a clock that jumped fires late, not early', async () => {
  const clock = drivenClock(0);
  let at = -1;
  clock.after(10, () => {
    at = clock.now();
  });
  clock.jump(50);
  assert.equal(at, -1);
  await clock.advance(0);
  assert.equal(at, 50);
});
