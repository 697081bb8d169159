/** Who is served, who waits and who is sent away when very many agents want everything at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { snapshotLine } from '../../../server/api/snapshot-line.ts';
import { Fault } from '../../../src/errors.ts';
import { drivenClock } from '../../support/clock.ts';

const { signal } = new AbortController();
const retryOf = (refused: Promise<unknown>): Promise<number | undefined> =>
  refused.then(
    () => assert.fail('it was let in'),
    (fault) => {
      assert.ok(fault instanceof Fault && fault.code === 'limit/exceeded');
      return fault.retryAfterMs;
    },
  );

/** Fills all 32 places, and the line with so many. */
async function fill(enter: ReturnType<typeof snapshotLine>, waiting: number): Promise<void> {
  await Promise.all(Array.from({ length: 32 }, () => enter(signal)));
  for (let one = 0; one < waiting; one += 1) void enter(signal);
}

test('32 are served, 256 wait, and each of the others is told a moment of its own', async () => {
  const clock = drivenClock();
  const enter = snapshotLine(clock);
  const served = await Promise.all(Array.from({ length: 32 }, () => enter(signal)));
  const order: number[] = [];
  const waiting = Array.from({ length: 256 }, (_, index) =>
    enter(signal).then((leave) => {
      order.push(index);
      return leave;
    }),
  );
  assert.deepEqual(await Promise.all([retryOf(enter(signal)), retryOf(enter(signal))]), [1_005, 1_010]);
  served[0]!();
  served[1]!();
  await Promise.all([waiting[0], waiting[1]]);
  assert.deepEqual(order, [0, 1]);
  waiting.push(enter(signal), enter(signal));
  assert.equal(await retryOf(enter(signal)), 1_015);
  await clock.advance(2_000);
  assert.equal(await retryOf(enter(signal)), 1_005);
  for (const next of waiting) (await next)();
});

test('nobody is sent away for more than a minute', async () => {
  const enter = snapshotLine(drivenClock());
  await fill(enter, 256);
  let most = 0;
  for (let one = 0; one < 20_000; one += 1) most = Math.max(most, (await retryOf(enter(signal))) ?? 0);
  assert.equal(most, 60_000);
});

test('who has gone from the line makes room', async () => {
  const enter = snapshotLine(drivenClock());
  await fill(enter, 255);
  const leaving = new AbortController();
  const gone = enter(leaving.signal);
  await retryOf(enter(signal));
  leaving.abort(new Error('gone'));
  await assert.rejects(gone, /gone/);
  void enter(signal);
  await retryOf(enter(signal));
});
