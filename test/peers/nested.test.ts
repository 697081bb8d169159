/** Servers below servers, Go's and ours in both orders, while the root of the tree is replaced under their workloads. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { rotateRoot } from './stories/rotate-root.ts';
import type { Make } from './support/pair.ts';
import { withPlace } from './support/place.ts';

const trees: readonly (readonly [Make, Make, Make])[] = [
  ['spire', 'mutual', 'spire'],
  ['mutual', 'spire', 'mutual'],
];
const named = { spire: "Go's", mutual: 'ours' } as const;

describe('a tree of three servers, its root prepared, activated, tainted and revoked', { concurrency: 2 }, () => {
  for (const makes of trees) {
    const [root, middle, leaf] = makes.map((make) => named[make]);
    test(`${leaf} below ${middle} below ${root}: no handshake fails`, async () => {
      const { handshakes, ...seen } = await withPlace((place) => rotateRoot(place, makes));
      console.log(`${handshakes.join(' and ')} handshakes, ${seen.refused.length} refused`);
      assert.deepEqual(seen, {
        refused: [],
        issuers: [2, 2],
        roots: [
          [1, 1],
          [1, 1],
          [1, 1],
        ],
        tokens: [true, true],
      });
      assert.ok(Math.min(...handshakes) > 50);
    });
  }
});
