import assert from 'node:assert/strict';
import { test } from 'node:test';
import { audienceOf, type WitRequest, type WitVerifierOptions, witVerifier } from '../../sdk/wit-verifier.ts';
import { testAuthority } from '../support/ca.ts';
import { fault } from '../support/fault.ts';
import { testWits } from '../support/wit.ts';

const now = Date.UTC(2030, 0, 1);
const seconds = now / 1000;
const wits = testWits(testAuthority({ now }), now);
const token = wits.wit({ nbf: seconds - 10, exp: seconds + 3600 });

const verifier = (more: Partial<WitVerifierOptions> = {}) =>
  witVerifier({ audience: 'audience', bundleOf: () => wits.bundle, now: () => now, ...more });
const request = (headers: Record<string, string>, encrypted = true): WitRequest => ({ headers, socket: { encrypted } });
const shown = (proof: Record<string, unknown> = {}, wit = token) =>
  request({ 'workload-identity-token': wit, 'workload-proof-token': wits.proof(wit, proof) });

test('WIT-21 a request with token and proof is its sender’s', async () => {
  assert.equal((await verifier()(shown())).id, 'spiffe://example.org/workload');
});

for (const [what, refused, says] of [
  ['WIT-21 without a proof', request({ 'workload-identity-token': token }), /without a proof/],
  ['without a token', request({}), /the request has none/],
  ['WIT-22 with a token in Authorization', request({ authorization: `Bearer ${token}` }), /Authorization header/],
  ['with a proof for another service', shown({ aud: 'other' }), /for audience/],
  ['WIT-24 with a proof that has ended', shown({ exp: seconds - 6 }), /expired at/],
] as const) {
  test(`${what} a request is refused`, () => assert.rejects(verifier()(refused), fault('svid/invalid', says)));
}

test('WIT-27 a request in the clear is refused, unless something in front of the service ends TLS', async () => {
  const clear = { ...shown(), socket: {} };
  await assert.rejects(verifier()(clear), fault('svid/invalid', /without TLS/));
  await assert.rejects(verifier()({ ...shown(), socket: { encrypted: false } }), fault('svid/invalid', /without TLS/));
  await verifier({ behindTls: true })(clear);
});

test('WIT-27 what is sent is for addresses with https', () => {
  assert.equal(audienceOf('https://db.example.org:8443/a?b'), 'https://db.example.org:8443');
  for (const url of ['http://db.example.org', 'ftp://db', 'no address'])
    assert.throws(
      () => audienceOf(url),
      url === 'no address' ? TypeError : fault('input/invalid', /not an address with https/),
    );
});

test('WIT-26 a proof is taken once only, by whomever it comes, until it has ended; other proofs are others', async () => {
  let at = now;
  const verify = verifier({ now: () => at });
  const one = shown();
  await verify(one);
  await assert.rejects(verify(one), fault('svid/invalid', /used before/));
  await verify(shown({ jti: 'two' }));
  at += 34_000;
  await assert.rejects(verify(one), fault('svid/invalid', /used before/), 'its leeway counts too');
  at += 2_000;
  await assert.rejects(verify(one), fault('svid/invalid', /expired at/));
  const replaying = verifier({ allowReplay: true });
  await replaying(one);
  await replaying(one);
});

test('WIT-12 two requests with one token are two requests: its jti says nothing', async () => {
  const verify = verifier();
  const wit = wits.wit({ jti: 'same' });
  await verify(shown({ jti: 'one' }, wit));
  await verify(shown({ jti: 'two' }, wit));
});

test('WIT-15 a service may refuse tokens that live longer than it wants, or do not say how long', async () => {
  await verifier({ longestLife: 3_610_000 })(shown());
  await assert.rejects(verifier({ longestLife: 3_609_999 })(shown()), fault('svid/invalid', /lives 3610 s/));
  await assert.rejects(
    verifier({ longestLife: 3_610_000 })(shown({}, wits.wit())),
    fault('svid/invalid', /does not say since when/),
  );
});

test('a verifier without a name for itself is refused', () => {
  assert.throws(() => verifier({ audience: '' }), fault('input/invalid', /audience/));
});
