import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeName, encodeName, generations, generationTime } from '../../../src/keys/key-name.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { drivenClock } from '../../support/clock.ts';

test('every name can be read back, and is written with letters, digits, - and _ alone', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (name) => {
      assert.match(encodeName(name), /^[A-Za-z0-9_-]*$/);
      assert.equal(decodeName(encodeName(name)), name.toWellFormed());
    }),
  );
});

test('what is not written like that is no name', () => {
  for (const text of ['a.b', '_', '_4', '_GG', '_41', 'a_2Fb', '_ff', 'ä', 'a/b'])
    assert.equal(decodeName(text), undefined, text);
});

test('generations say when they were made and are in order, also within a millisecond and when the clock goes back', () => {
  const clock = drivenClock();
  const next = generations(clock, systemRandom);
  const made = [next(), next(), next()];
  clock.jump(-60_000);
  made.push(next());
  assert.deepEqual([...made].sort(), made);
  assert.equal(generationTime(made[0]!), clock.now() + 60_000);
  for (const text of ['', made[0]!.slice(1), `${made[0]}0`, made[0]!.replace(/^./, 'g')])
    assert.equal(generationTime(text), undefined);
});
