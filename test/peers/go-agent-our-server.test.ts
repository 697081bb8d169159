/**
 * Go's spire-agent against our server, and the same told of Go's agent with its own server: what differs is a defect of
 * ours, or is named here.
 */

import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { attestAndServe } from './stories/attest-and-serve.ts';
import { expelAgent } from './stories/expel-agent.ts';
import { rotateAuthority } from './stories/rotate-authority.ts';
import type { Make } from './support/pair.ts';
import { withPlace } from './support/place.ts';

const ours: { server: Make; agent: Make } = { server: 'mutual', agent: 'spire' };
const theirs: { server: Make; agent: Make } = { server: 'spire', agent: 'spire' };

describe('a Go agent with our server', { concurrency: 2 }, () => {
  test('by join token: attests, serves X.509- and JWT-SVIDs that go-spiffe and we accept, as with its own', async () => {
    const seen = await withPlace((place) => attestAndServe(place, ours, 'join_token'));
    assert.deepEqual(seen, await withPlace((place) => attestAndServe(place, theirs, 'join_token')));
  });

  test('CVE-2022-21679 by x509pop: an agent of another version has the rights and the selectors it has with its own server', async () => {
    const seen = await withPlace((place) => attestAndServe(place, ours, 'x509pop'));
    const known = await withPlace((place) => attestAndServe(place, theirs, 'x509pop'));
    const comparable = ({ agentId, agentSelectors, ...rest }: typeof seen) => ({
      ...rest,
      agentId: agentId.replace(/[0-9a-f]{40}$/, '<sha1>'),
      agentSelectors: agentSelectors.map((selector) => selector.replace(/[0-9a-f]{40}$/, '<sha1>')),
    });
    assert.deepEqual(comparable(seen), comparable(known));
  });

  test('its workload never sees an SVID it cannot verify while our CA rotates', async () => {
    const seen = await withPlace((place) => rotateAuthority(place, ours));
    assert.deepEqual(seen, { issuers: 2, invalid: 0, lost: 0, agentRuns: true });
  });

  for (const method of ['join_token', 'x509pop'] as const)
    for (const how of ['ban', 'evict'] as const)
      test(`after ${how} of a node attested by ${method} it does what it does with its own server`, async () => {
        const [seen, known] = await Promise.all([
          withPlace((place) => expelAgent(place, ours, how, method)),
          withPlace((place) => expelAgent(place, theirs, how, method)),
        ]);
        assert.deepEqual(seen, known);
      });
});
