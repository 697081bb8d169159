import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sayOnce } from '../../../agent/api/say-once.ts';
import { type Log, silentLog } from '../../../src/log.ts';
import { drivenClock } from '../../support/clock.ts';

function said() {
  const clock = drivenClock();
  const lines: { event: string; fields: Readonly<Record<string, unknown>> }[] = [];
  const log: Log = { ...silentLog, warn: (fields, event) => lines.push({ event, fields }) };
  return { clock, lines, say: sayOnce(log, clock) };
}

test('the same thing of the same user is written once an hour; another thing, user or event by itself', async () => {
  const { clock, lines, say } = said();
  const all = (): void => {
    say('1000', 'a', { n: 1 }, 'rejected');
    say('1000', 'b', { n: 2 }, 'rejected');
    say('1001', 'a', { n: 3 }, 'rejected');
    say('1000', 'a', { n: 4 }, 'unread');
  };
  for (let round = 0; round < 100; round++) all();
  assert.deepEqual(
    lines.map(({ fields }) => fields.n),
    [1, 2, 3, 4],
  );
  await clock.advance(60 * 60_000 - 1);
  all();
  assert.equal(lines.length, 4);
  await clock.advance(1);
  all();
  assert.equal(lines.length, 8);
});

test('a user who thinks of something else each time gets twenty lines an hour, the last of which says so', () => {
  const { lines, say } = said();
  for (let n = 0; n < 10_000; n++) say('1000', String(n), { n }, 'unknown');
  say('1001', '0', { n: -1 }, 'unknown');
  assert.equal(lines.length, 21);
  assert.equal(lines[18]?.fields.more, undefined);
  assert.equal(lines[19]?.fields.more, 'not written within the hour');
  assert.equal(lines[20]?.fields.n, -1);
});
