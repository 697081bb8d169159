import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import type { TrustDomain } from '../../../src/spiffe/id.ts';
import { longestLeeway, verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';

const now = Date.UTC(2030, 0, 1);
const seconds = now / 1000;
const ca = testAuthority({ now });
const bundle = ca.bundle();
const bundleOf = (domain: TrustDomain): Bundle | undefined => (domain === 'example.org' ? bundle : undefined);
const verify = (token: string, at = now, leeway = 0) => verifyJwtSvid(token, 'audience', bundleOf, at, leeway);

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`JWT-3 JWT-6 JWT-16 a token signed with ${keyType} verifies to its subject, claims and times`, async () => {
    const own = testAuthority({ now, jwtKeyType: keyType });
    const verified = await verifyJwtSvid(own.jwt({ more: { nested: [1] } }), 'audience', () => own.bundle(), now);
    assert.equal(verified.id, 'spiffe://example.org/workload');
    assert.equal(verified.keyId, own.jwtKeyId);
    assert.equal(verified.expiresAt, now + 300_000);
    assert.deepEqual(verified.claims, {
      sub: 'spiffe://example.org/workload',
      aud: ['audience'],
      exp: seconds + 300,
      iat: seconds,
      more: { nested: [1] },
    });
  });
}

test('JWT-8 JWT-9 the audience may be one text or a list, and must name the verifier exactly', async () => {
  for (const aud of ['audience', ['audience'], ['other', 'audience']]) await verify(ca.jwt({ aud }));
  for (const aud of ['Audience', ['audience/'], [['audience']], ['aud', 'ience'], { audience: 1 }])
    await assert.rejects(verify(ca.jwt({ aud })), fault('svid/invalid', /audience/));
  await assert.rejects(
    verifyJwtSvid(ca.jwt({ aud: [''] }), '', bundleOf, now),
    fault('input/invalid', /audience is empty/),
  );
});

test('JWT-5 the type may be left out, JWT or JOSE', async () => {
  for (const typ of [undefined, 'JWT', 'JOSE']) await verify(ca.jwt({}, { typ }));
  for (const typ of ['jwt', 'at+jwt', 'wit+jwt', '', null, 1])
    await assert.rejects(verify(ca.jwt({}, { typ })), fault('svid/invalid', /type/));
});

test('JWT-11 a token is valid up to its expiry, and a leeway later where one is given', async () => {
  const token = ca.jwt({ exp: seconds + 60 });
  await verify(token, now + 59_999);
  await assert.rejects(verify(token, now + 60_000), fault('svid/invalid', /expired at 2030-01-01T00:01:00/));
  await verify(token, now + 89_999, 30_000);
  await assert.rejects(verify(token, now + 90_000, 30_000), fault('svid/invalid', /expired/));
  for (const leeway of [-1, longestLeeway + 1, Number.NaN])
    await assert.rejects(verify(token, now, leeway), RangeError);
});

test('JWT-13 a token is not valid before the time it names', async () => {
  const token = ca.jwt({ nbf: seconds + 10 });
  await assert.rejects(verify(token), fault('svid/invalid', /not valid yet/));
  await verify(token, now, 10_000);
  await verify(token, now + 10_000);
});

test('JWT-10 times that are no numbers of seconds are refused', async () => {
  for (const exp of ['4000000000', null, -1, 1e300, [seconds + 60], true])
    await assert.rejects(verify(ca.jwt({ exp })), fault('svid/invalid', /expiry/));
  for (const claims of [{ nbf: 'x' }, { iat: 'x' }, { nbf: null }])
    await assert.rejects(verify(ca.jwt(claims)), fault('svid/invalid', /not a number of seconds/));
  assert.equal((await verify(ca.jwt({ exp: seconds + 0.5 }))).expiresAt, now + 500);
});

test('JWT-12 other claims are no hindrance and are handed on', async () => {
  const verified = await verify(
    ca.jwt({ iss: 'https://example.org', jti: 'x', 'https://example.org/claim': [1, null, { a: true }] }),
  );
  assert.deepEqual(verified.claims['https://example.org/claim'], [1, null, { a: true }]);
});

const refused: [name: string, token: () => string, why: RegExp][] = [
  ['JWT-6 no subject', () => ca.jwt({ sub: undefined }), /no subject/],
  ['JWT-6 a subject that is no text', () => ca.jwt({ sub: ['spiffe://example.org/a'] }), /no subject/],
  ['JWT-6 a subject that is no SPIFFE ID', () => ca.jwt({ sub: 'https://example.org/a' }), /does not begin with/],
  ['JWT-7 JWT-8 no audience', () => ca.jwt({ aud: undefined }), /no audience/],
  ['JWT-10 no expiry', () => ca.jwt({ exp: undefined }), /no expiry/],
  ['JWT-2 a key of its own in the header', () => ca.jwt({}, { jwk: { kty: 'EC' } }), /member "jwk"/],
  ['JWT-2 a key address in the header', () => ca.jwt({}, { jku: 'https://evil.example' }), /member "jku"/],
  ['JWT-2 critical header members', () => ca.jwt({}, { crit: ['exp'] }), /member "crit"/],
  ['JWT-4 no key name', () => ca.jwt({}, { kid: undefined }), /names no key/],
  ['a key name nobody has', () => ca.jwt({}, { kid: 'x' }), /no JWT key "x"/],
  [
    'a trust domain nobody knows',
    () => ca.jwt({ sub: 'spiffe://other.org/a' }),
    /no bundle of trust domain "other\.org"/,
  ],
  ["an algorithm that is not its key's", () => ca.jwt({}, { alg: 'ES384' }), /does not fit the key/],
];
for (const [what, token, why] of refused) {
  test(`refuses a token with ${what}`, async () => {
    await assert.rejects(verify(token()), fault('svid/invalid', why));
  });
}

test('FED-6 a bundle of another trust domain is not believed, wherever it comes from', async () => {
  const other = testAuthority({ now, trustDomain: 'other.org' });
  const token = other.jwt({ sub: 'spiffe://example.org/workload' });
  await assert.rejects(
    verifyJwtSvid(token, 'audience', () => other.bundle(), now),
    fault('svid/invalid', /no bundle/),
  );
  await assert.rejects(verify(token), fault('svid/invalid', /no JWT key/));
});

test('a key that has expired verifies nothing more', async () => {
  const [authority] = bundle.jwtAuthorities;
  const old = ca.bundle({ jwtAuthorities: [{ ...authority!, expiresAt: seconds + 10 }] });
  await verifyJwtSvid(ca.jwt(), 'audience', () => old, now);
  await assert.rejects(
    verifyJwtSvid(ca.jwt(), 'audience', () => old, now + 10_000),
    fault('svid/invalid', /has expired/),
  );
});

test('two keys of one name in two bundles do not stand in for each other, also once imported', async () => {
  const other = testAuthority({ now });
  const twin = ca.bundle({ jwtAuthorities: [{ ...other.bundle().jwtAuthorities[0]!, keyId: ca.jwtKeyId }] });
  await verify(ca.jwt());
  await assert.rejects(
    verifyJwtSvid(ca.jwt(), 'audience', () => twin, now),
    fault('svid/invalid', /signature/),
  );
  await verify(ca.jwt());
});
