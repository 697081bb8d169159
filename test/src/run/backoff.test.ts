import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backoffDelay } from '../../../src/run/backoff.ts';

const policy = { first: 1000, most: 60_000, factor: 1.5 };

test('delays grow by the factor up to the largest', () => {
  assert.deepEqual(
    [1, 2, 3, 100].map((failures) => backoffDelay(policy, failures, 0.5)),
    [1000, 1500, 2250, 60_000],
  );
  assert.equal(backoffDelay(policy, 0, 0.5), 1000);
});

test('a delay is never further than a tenth from the plain one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10_000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (failures, unit) => {
        const plain = backoffDelay(policy, failures, 0.5);
        const drawn = backoffDelay(policy, failures, unit);
        assert.ok(drawn >= plain * 0.9 - 1 && drawn <= plain * 1.1 + 1);
      },
    ),
  );
});
