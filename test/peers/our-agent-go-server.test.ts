/** Our agent against Go's spire-server, which knows nothing of our own services; Go's agent there is the measure. */

import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { attestAndServe } from './stories/attest-and-serve.ts';
import { expelAgent } from './stories/expel-agent.ts';
import { rotateAuthority } from './stories/rotate-authority.ts';
import type { Make } from './support/pair.ts';
import { withPlace } from './support/place.ts';

const ours: { server: Make; agent: Make } = { server: 'spire', agent: 'mutual' };
const theirs: { server: Make; agent: Make } = { server: 'spire', agent: 'spire' };

describe('our agent with a Go server', { concurrency: 2 }, () => {
  test('by join token: attests and serves what the Go agent serves', async () => {
    const seen = await withPlace((place) => attestAndServe(place, ours, 'join_token'));
    assert.deepEqual(seen, await withPlace((place) => attestAndServe(place, theirs, 'join_token')));
  });

  test('by x509pop: attests and serves what the Go agent serves', async () => {
    const seen = await withPlace((place) => attestAndServe(place, ours, 'x509pop'));
    assert.equal(seen.attestationType, 'x509pop');
    assert.equal(seen.canReattest, true);
    assert.ok(seen.agentSelectors.includes('x509pop:subject:cn:node-1'));
    assert.deepEqual(seen.afterRestart, ['spiffe://example.org/web']);
  });

  test('its workload never sees an SVID it cannot verify while the Go server rotates its CA', async () => {
    const seen = await withPlace((place) => rotateAuthority(place, ours));
    assert.deepEqual(seen, { issuers: 2, invalid: 0, lost: 0, agentRuns: true });
  });

  test('banned, it ends with code 1 and stays out when started again', async () => {
    const seen = await withPlace((place) => expelAgent(place, ours, 'ban', 'x509pop'));
    assert.deepEqual(seen, { agent: 'ended', exitCode: 1, banned: true, afterRestart: 'ended' });
  });

  test('evicted, it ends when its token is spent', async () => {
    const seen = await withPlace((place) => expelAgent(place, ours, 'evict', 'join_token'));
    assert.deepEqual(seen, { agent: 'ended', exitCode: 1, banned: false, afterRestart: 'not tried' });
  });

  test('evicted, it attests again in place by x509pop and serves on', async () => {
    const seen = await withPlace((place) => expelAgent(place, ours, 'evict', 'x509pop'));
    assert.deepEqual(seen, { agent: 'served', exitCode: undefined, banned: false, afterRestart: 'served' });
  });
});
