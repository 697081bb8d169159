/** Whether a server is the one that was meant. The handshakes around it are in test/src/rpc/serve-tls.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { parseId, type SpiffeId } from '../../../src/spiffe/id.ts';
import { verifyPeer } from '../../../src/tls/verify-peer.ts';
import { testAuthority } from '../../support/ca.ts';

const now = Date.UTC(2030, 0, 1);
const ca = testAuthority({ now });
const id = parseId('spiffe://example.org/spire/server');
const svid = ca.issue({ id });
const refusal = (
  chain: readonly Buffer[],
  expected: { id: SpiffeId; roots: readonly Buffer[] | undefined },
  at = now,
): string => {
  try {
    verifyPeer(chain, expected, at);
  } catch (error) {
    assert.ok(error instanceof Fault && error.code === 'peer/untrusted', String(error));
    return error.message;
  }
  return '';
};

test('X509-24 the expected ID with an authority behind it is accepted, and its leaf given', () => {
  assert.deepEqual(verifyPeer(svid.chain, { id, roots: [ca.der] }, now).der, svid.der);
  const below = ca.intermediate();
  assert.equal(refusal(below.issue({ id }).chain, { id, roots: [ca.der] }), '');
});

test('everything else is refused, with what was wrong', () => {
  const roots = [ca.der];
  assert.match(refusal([], { id, roots }), /presented no certificate/);
  assert.match(refusal([Buffer.from('3000', 'hex')], { id, roots }), /did not prove to be/);
  assert.match(
    refusal(ca.issue({ id: 'spiffe://example.org/spire/server2' }).chain, { id, roots }),
    /it is "spiffe:\/\/example.org\/spire\/server2"/,
  );
  assert.match(refusal(ca.issue({ id: 'spiffe://example.com/spire/server' }).chain, { id, roots }), /it is/);
  assert.notEqual(refusal(svid.chain, { id, roots: [] }), '');
  assert.notEqual(refusal(svid.chain, { id, roots: [testAuthority({ now }).der] }), '');
  assert.notEqual(refusal(svid.chain, { id, roots }, now + 2 * 3_600_000), '');
  assert.notEqual(refusal(svid.chain, { id, roots }, now - 60_000), '');
  assert.notEqual(refusal(ca.issue({ id, ca: true }).chain, { id, roots }), '');
});

test('without roots only the ID counts, and the leaf must still be one', () => {
  const own = testAuthority({ now }).issue({ id });
  assert.equal(refusal(own.chain, { id, roots: undefined }), '');
  assert.notEqual(refusal(own.chain, { id: parseId('spiffe://example.org/other'), roots: undefined }), '');
  assert.notEqual(refusal(ca.issue({ id, ca: true }).chain, { id, roots: undefined }), '');
});
