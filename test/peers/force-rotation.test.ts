/**
 * The steps of SPIRE's force-rotation suites on our server, with our agent and the unmodified Go agent at once; driven by
 * the Go command line, then again by ours.
 */
import test, { after, before, describe } from 'node:test';
import { forceJwtRotation, forceX509Rotation } from './stories/force-rotation.ts';
import { operator } from './support/operator.ts';
import type { Make } from './support/pair.ts';
import { makePlace } from './support/place.ts';
import { startTwoAgents, type TwoAgents } from './support/two-agents.ts';

const commands: readonly (readonly [Make, string])[] = [
  ['spire', 'spire-server localauthority'],
  ['mutual', 'mutual authority'],
];

describe('authorities are rotated by force', () => {
  const place = makePlace();
  let two: TwoAgents;
  before(async () => {
    two = await startTwoAgents(place);
  });
  after(() => place.close());

  for (const [make, command] of commands) {
    test(`X.509, self-signed, by ${command}: both agents and their workloads move, none is refused`, () =>
      forceX509Rotation(two, operator(two.server, make)));
    test(`JWT, by ${command}: both agents drop the tokens of the tainted key`, () =>
      forceJwtRotation(two, operator(two.server, make)));
  }
});
