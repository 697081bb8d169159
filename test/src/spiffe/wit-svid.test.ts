import assert from 'node:assert/strict';
import { test } from 'node:test';
import { longestWitLeeway, verifyWitSvid } from '../../../src/spiffe/wit-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { testWits } from '../../support/wit.ts';

const now = Date.UTC(2030, 0, 1);
const seconds = now / 1000;
const ca = testAuthority({ now });
const other = testAuthority({ now, trustDomain: 'other.org' });
const { bundle, jwk, wit, proof } = testWits(ca, now);
/** With a proof that is right for it, made to last as long as the test's own clock needs. */
const verify = (token: string, at = now, leeway = 0, trusted = bundle) =>
  verifyWitSvid(
    token,
    (domain) => (domain === 'example.org' ? trusted : undefined),
    at,
    { token: proof(token, { exp: at / 1000 + 30 }), audience: 'audience' },
    leeway,
  );

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`WIT-1 WIT-5 WIT-10 WIT-21 a token bound to a key of type ${keyType} verifies with a proof by that key`, async () => {
    const own = testWits(ca, now, keyType);
    const token = own.wit({ jti: 'same', more: [1] });
    const verified = await verifyWitSvid(token, () => own.bundle, now, {
      token: own.proof(token),
      audience: 'audience',
    });
    assert.equal(verified.id, 'spiffe://example.org/workload');
    assert.equal(verified.keyId, ca.jwtKeyId);
    assert.equal(verified.expiresAt, now + 300_000);
    assert.deepEqual(verified.claims.more, [1]);
    assert.deepEqual(verified.proof, { id: 'one', expiresAt: now + 30_000 });
  });
}

test('WIT-13 a token is valid up to its expiry, and a leeway of at most two minutes later', async () => {
  const token = wit({ exp: seconds });
  await verify(token, now - 1);
  await assert.rejects(verify(token), fault('svid/invalid', /expired at/));
  await verify(token, now + 119_999, longestWitLeeway);
  await assert.rejects(verify(token, now + 120_000, longestWitLeeway), fault('svid/invalid', /expired at/));
  for (const leeway of [-1, longestWitLeeway + 1, Number.NaN])
    await assert.rejects(verify(token, now, leeway), RangeError);
});

test('WIT-14 WIT-16 a token is not valid before its nbf, while an iat in the future bounds nothing', async () => {
  await assert.rejects(verify(wit({ nbf: seconds + 10 })), fault('svid/invalid', /not valid yet/));
  await verify(wit({ nbf: seconds + 10 }), now, 10_000);
  await verify(wit({ nbf: seconds - 3600 }));
  await verify(wit({ iat: seconds + 200 }));
});

test('WIT-7 WIT-19 header members and claims that are not known are ignored, but for those named in crit', async () => {
  await verify(wit({ scope: 'x' }, { jku: 'https://example.org', x: 1 }));
  await assert.rejects(verify(wit({}, { crit: ['x'], x: 1 })), fault('svid/invalid', /must be understood/));
});

test('WIT-12 two tokens of one jti are both accepted', async () => {
  await verify(wit({ jti: 'same' }));
  await verify(wit({ jti: 'same', nbf: seconds }));
});

test('WIT-29 keys count only from the wit-svid entries of the trust domain the token names', async () => {
  await assert.rejects(verify(wit(), now, 0, ca.bundle()), fault('svid/invalid', /no WIT key/));
  const foreign = testWits(other, now);
  await assert.rejects(verify(foreign.wit()), fault('svid/invalid', /no bundle of trust domain "other\.org"/));
  await assert.rejects(verify(wit(), now, 0, foreign.bundle), fault('svid/invalid', /no bundle of trust domain/));
  const forged = foreign.wit({ sub: 'spiffe://example.org/a' }, { kid: ca.jwtKeyId });
  await assert.rejects(verify(forged), fault('svid/invalid', /signature/));
  const expired = { ...bundle, witAuthorities: [{ ...bundle.witAuthorities[0]!, expiresAt: seconds }] };
  await assert.rejects(verify(wit(), now, 0, expired), fault('svid/invalid', /has expired/));
});

const { x: _, ...half } = jwk;
const refused: [name: string, token: () => string, why: RegExp][] = [
  ['WIT-2 no kid', () => wit({}, { kid: undefined }), /names no key/],
  ['WIT-3 a kid in other letters', () => wit({}, { kid: ca.jwtKeyId.toUpperCase() }), /no WIT key/],
  ['WIT-4 no typ', () => wit({}, { typ: undefined }), /its type/],
  ['WIT-4 the typ of another kind', () => wit({}, { typ: 'JWT' }), /its type/],
  ['WIT-5 alg EdDSA', () => wit({}, { alg: 'EdDSA' }), /algorithm "EdDSA"/],
  ['WIT-8 no sub', () => wit({ sub: undefined }), /no subject/],
  ['WIT-8 a sub that is no SPIFFE ID', () => wit({ sub: 'workload' }), /does not begin/],
  ['WIT-9 no cnf', () => wit({ cnf: undefined }), /bound to no key/],
  ['WIT-9 a cnf without jwk', () => wit({ cnf: { kid: 'x' } }), /bound to no key/],
  ['WIT-9 a cnf with half a key', () => wit({ cnf: { jwk: half } }), /numbers are missing/],
  ['WIT-9 a cnf with a point off its curve', () => wit({ cnf: { jwk: { ...jwk, x: jwk.y } } }), /not a valid key/],
  ['WIT-9 a private key', () => wit({ cnf: { jwk: { ...jwk, d: 'AA' } } }), /not public/],
  ['WIT-9 a symmetric key', () => wit({ cnf: { jwk: { kty: 'oct', k: 'AA', alg: 'ES256' } } }), /not public/],
  ['WIT-10 no alg of its key', () => wit({ cnf: { jwk: { ...jwk, alg: undefined } } }), /of its "cnf"/],
  ['WIT-10 alg EdDSA of its key', () => wit({ cnf: { jwk: { ...jwk, alg: 'EdDSA' } } }), /"EdDSA" of its "cnf"/],
  ['WIT-10 alg HS256 of its key', () => wit({ cnf: { jwk: { ...jwk, alg: 'HS256' } } }), /"HS256" of its "cnf"/],
  [
    "WIT-10 an alg that is not its key's",
    () => wit({ cnf: { jwk: { ...jwk, alg: 'ES384' } } }),
    /ES384 of its "cnf" does not fit/,
  ],
  ['WIT-13 no exp', () => wit({ exp: undefined }), /no expiry/],
  ['WIT-18 an aud', () => wit({ aud: ['audience'] }), /audience/],
  ['WIT-18 an empty aud', () => wit({ aud: null }), /audience/],
];
for (const [what, token, why] of refused) {
  test(`refuses a WIT with ${what}`, async () => {
    await assert.rejects(verify(token()), fault('svid/invalid', why));
  });
}

test('WIT-1 a token in JSON serialization is refused', async () => {
  const [head, payload, signature] = wit().split('.');
  await assert.rejects(
    verify(JSON.stringify({ protected: head, payload, signature })),
    fault('svid/invalid', /compact/),
  );
});

test('WIT-21 a token without a proof is refused', async () => {
  await assert.rejects(
    verifyWitSvid(wit(), () => bundle, now),
    fault('svid/invalid', /without a proof/),
  );
});
