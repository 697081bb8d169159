/** A stream that is opened again: pauses grow while nothing comes, a message begins them anew, and who decides ends it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Following, follow } from '../../../src/run/follow.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { drivenClock } from '../../support/clock.ts';

/** Follows streams given as lists of messages and one error at most; each pause is written down and ends at once. */
async function followed(streams: readonly (readonly (string | Error)[])[], extra: Partial<Following<string>> = {}) {
  const seen: unknown[] = [];
  const over = new AbortController();
  let opened = 0;
  const following = follow<string>({
    async *open() {
      const next = streams[opened++];
      if (next === undefined) return over.abort(new Error('no more'));
      for (const one of next) {
        if (one instanceof Error) throw one;
        yield one;
      }
    },
    take: (message) => seen.push(message),
    ended: (error) => seen.push(error instanceof Error ? error.message : error),
    backoff: { first: 100, most: 1000, factor: 2 },
    clock: drivenClock(),
    random: { ...systemRandom, unit: () => 0.5 },
    signal: over.signal,
    async pause(ms) {
      seen.push(ms);
    },
    ...extra,
  });
  const why = await following.catch((error: unknown) => (error as Error).message);
  return { seen, why, opened };
}

test('pauses grow while nothing comes, and a message begins them anew', async () => {
  const { seen, why } = await followed([[new Error('away')], [], ['a', new Error('cut')], [new Error('away')]]);
  const first = ['away', 100, undefined, 200];
  assert.deepEqual(seen, [...first, 'a', 'cut', 100, 'away', 200]);
  assert.equal(why, 'no more');
});

test('what cannot be taken is a failure of the stream like another', async () => {
  const take = (message: string) => {
    throw new Error(`cannot read ${message}`);
  };
  const { seen, opened } = await followed([['a', 'b']], { take });
  assert.deepEqual(seen, ['cannot read a', 100]);
  assert.equal(opened, 2);
});

test('what is thrown at an end ends the following, before any pause', async () => {
  const ended = (error: unknown) => {
    throw error;
  };
  const { seen, why, opened } = await followed([['a', new Error('refused')], ['b']], { ended });
  assert.deepEqual([seen, why, opened], [['a'], 'refused', 1]);
});

test('an abort in a pause ends it with the reason, and nothing is opened after it', async () => {
  const stop = new AbortController();
  const pause = async () => stop.abort(new Error('closed'));
  const { why, opened } = await followed([['a'], ['b']], { signal: stop.signal, pause });
  assert.deepEqual([why, opened], ['closed', 1]);
});
