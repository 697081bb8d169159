/**
 * SPIRE's force-rotation-self-signed suite in its own tree of five servers, with ours at the root and servers and agents of
 * both makes below; by the Go command line, then again by ours.
 */
import test, { after, before, describe } from 'node:test';
import { forceTreeRotation, startTree, type Tree } from './stories/force-rotation-tree.ts';
import { makePlace } from './support/place.ts';

describe('the root of five servers is rotated by force', () => {
  const place = makePlace();
  let tree: Tree;
  before(async () => {
    tree = await startTree(place);
  });
  after(() => place.close());

  for (const [make, command] of [
    ['spire', 'spire-server localauthority'],
    ['mutual', 'mutual authority'],
  ] as const)
    test(`by ${command}: each step arrives at every server, agent and workload, and no handshake fails`, () =>
      forceTreeRotation(tree, make));
});
