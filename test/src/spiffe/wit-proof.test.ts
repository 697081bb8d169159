import assert from 'node:assert/strict';
import { test } from 'node:test';
import { classicKeyTypes, generateKey } from '../../../src/crypto/algorithms.ts';
import { privateJwk, spkiOfJwk } from '../../../src/crypto/jwk.ts';
import { jwkSigner } from '../../../src/crypto/jwk-signer.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import {
  longestProof,
  makeWitProof,
  proofLife,
  verifyWitProof,
  witFromHeaders,
} from '../../../src/spiffe/wit-proof.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { testWits } from '../../support/wit.ts';

const now = Date.UTC(2030, 0, 1);
const seconds = now / 1000;
const ca = testAuthority({ now });
const wits = testWits(ca, now);
const wit = wits.wit();
const key = { publicKey: spkiOfJwk(wits.jwk as Record<string, string>, 'key'), alg: 'ES256' } as const;
const verify = (proof: string, at = now, leeway = 0) => verifyWitProof(proof, wit, key, 'audience', at, leeway);

test('WIT-24 WIT-25 a proof ends at its expiry, and may not be made to last longer than a minute', async () => {
  assert.deepEqual(await verify(wits.proof(wit)), { id: 'one', expiresAt: now + 30_000 });
  const short = wits.proof(wit, { exp: seconds + 1 });
  await verify(short, now + 999);
  await assert.rejects(verify(short, now + 1000), fault('svid/invalid', /expired at/));
  await verify(short, now + 1000, 1);
  await verify(wits.proof(wit, { exp: (now + longestProof) / 1000 }));
  await assert.rejects(
    verify(wits.proof(wit, { exp: (now + longestProof) / 1000 + 1 })),
    fault('svid/invalid', /more than 60 s/),
  );
});

test('WIT-26 a proof carries the name by which a recipient knows that it was used', async () => {
  assert.equal((await verify(wits.proof(wit, { jti: 'two' }))).id, 'two');
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`WIT-24 WIT-25 a proof made with a ${keyType} key is one, for its audience and half a minute`, async () => {
    const { privateKey } = generateKey(keyType);
    const signer = jwkSigner(JSON.stringify(privateJwk(privateKey, classicKeyTypes[keyType].jwa)));
    const made = makeWitProof(wit, signer, 'audience', 'x', now + 999);
    assert.deepEqual(await verifyWitProof(made, wit, signer, 'audience', now + 999), {
      id: 'x',
      expiresAt: now + 30_000,
    });
    assert.deepEqual(decodeJwt(made).header, { alg: signer.alg, typ: 'wpt+jwt' });
    await assert.rejects(verifyWitProof(made, wit, signer, 'audience', now + proofLife), fault('svid/invalid'));
    await assert.rejects(verifyWitProof(made, wit, signer, 'other', now), fault('svid/invalid', /for audience/));
    assert.throws(() => makeWitProof(wit, signer, '', 'x', now), fault('input/invalid'));
  });
}

const refused: [name: string, proof: () => string, why: RegExp][] = [
  ['the typ of a WIT', () => wits.proof(wit, {}, { typ: 'wit+jwt' }), /its type/],
  ['another alg', () => wits.proof(wit, {}, { alg: 'ES384' }), /not the one of the key/],
  ['critical members', () => wits.proof(wit, {}, { crit: ['x'] }), /must be understood/],
  ['another audience', () => wits.proof(wit, { aud: 'other' }), /for audience/],
  ['no audience', () => wits.proof(wit, { aud: undefined }), /for audience/],
  ['no jti', () => wits.proof(wit, { jti: undefined }), /no name/],
  ['no expiry', () => wits.proof(wit, { exp: undefined }), /no expiry/],
  ['an nbf to come', () => wits.proof(wit, { nbf: seconds + 5 }), /not valid yet/],
  ['no hash of a token', () => wits.proof(wit, { wth: undefined }), /another token/],
  ['the hash of another token', () => wits.proof(wits.wit()), /another token/],
  ['the signature of another key', () => testWits(ca, now).proof(wit), /signature/],
];
for (const [what, proof, why] of refused) {
  test(`WIT-21 refuses a proof with ${what}`, async () => {
    await assert.rejects(verify(proof()), fault('svid/invalid', why));
  });
}

test('WIT-23 token and proof are taken from their two headers, in any case', () => {
  assert.deepEqual(witFromHeaders({ 'Workload-Identity-Token': 'a', 'workload-proof-token': ['b'], other: 'c' }), {
    token: 'a',
    proof: 'b',
  });
  assert.deepEqual(witFromHeaders({ authorization: `Bearer ${ca.jwt()}` }), { token: undefined, proof: undefined });
  assert.throws(() => witFromHeaders({ 'workload-proof-token': ['a', 'b'] }), fault('svid/invalid', /more than once/));
});

test('WIT-22 a WIT in Authorization refuses the request, whatever the scheme and even beside one sent rightly', () => {
  for (const value of [`Bearer ${wit}`, `bearer  ${wit}`, wit, `WIT token="${wit}"`, `DPoP ${wit}, Bearer x`])
    assert.throws(
      () =>
        witFromHeaders({
          Authorization: value,
          'workload-identity-token': wit,
          'workload-proof-token': wits.proof(wit),
        }),
      fault('svid/invalid', /Authorization/),
      value,
    );
});
