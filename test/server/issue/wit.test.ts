/** WIT-SVIDs as issued, for every type of key on either side, verified by our verifier and by jose alone. */
import assert from 'node:assert/strict';
import { createHash, createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import { importJWK, jwtVerify } from 'jose';
import { witKind } from '../../../server/authority/wit.ts';
import { issueWitSvid, readWitKey } from '../../../server/issue/wit.ts';
import {
  type ClassicKeyType,
  classicKeyTypes,
  generateKey,
  type JwtAlgorithm,
} from '../../../src/crypto/algorithms.ts';
import { publicJwk } from '../../../src/crypto/jwk.ts';
import { decodeJwt, signJwt } from '../../../src/crypto/jwt.ts';
import { heldKey } from '../../../src/keys/key-store.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { verifyWitSvid } from '../../../src/spiffe/wit-svid.ts';
import { fault } from '../../support/fault.ts';
import { id, td } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1) + 999;
const seconds = Math.floor(now / 1000);
const day = 24 * 3_600_000;
const types = Object.keys(classicKeyTypes) as ClassicKeyType[];

async function authority(type: ClassicKeyType = 'ec-p256') {
  const kind = witKind(day, systemRandom);
  const key = await memoryKeys().generate('wit', type);
  const slot = { ...(await kind.make(key, now)), keyId: 'wit', tainted: false };
  const empty: Bundle = {
    trustDomain: td,
    x509Authorities: [],
    jwtAuthorities: [],
    witAuthorities: [],
    refreshHint: 0,
    sequence: 1n,
  };
  return { slot, key, signer: kind.signer(slot, key), bundle: kind.publish(empty, slot) as Bundle };
}

function workload(type: ClassicKeyType = 'ec-p256', algorithm: JwtAlgorithm = classicKeyTypes[type].jwa) {
  const key = heldKey('workload', generateKey(type).privateKey);
  return { key, wit: readWitKey(key.publicKey, algorithm) };
}
const profileOf = (key: ReturnType<typeof readWitKey>) => ({
  id: id('/web'),
  key,
  ttl: 300_000,
  issuer: undefined,
  tokenId: 'one',
});

for (const [at, type] of types.entries()) {
  const held = types[(at + 1) % types.length]!;
  test(`WIT-1 WIT-2 WIT-4 WIT-5 WIT-6 WIT-8 WIT-9 WIT-10 WIT-13 WIT-18 ID-16 a WIT-SVID by a ${type} key for a ${held} key is as it must be, to others too`, async () => {
    const { signer, bundle, slot, key } = await authority(type);
    const { key: own, wit } = workload(held);
    const { token, issuedAt, expiresAt } = await issueWitSvid(signer, profileOf(wit), now);
    const { header, claims } = decodeJwt(token);
    assert.deepEqual(header, { alg: classicKeyTypes[type].jwa, kid: slot.id, typ: 'wit+jwt' });
    assert.deepEqual(claims, {
      sub: 'spiffe://example.org/web',
      exp: seconds + 300,
      nbf: seconds - 10,
      iat: seconds,
      jti: 'one',
      cnf: { jwk: { ...publicJwk(own.publicKey), alg: classicKeyTypes[held].jwa } },
    });
    assert.deepEqual([issuedAt, expiresAt], [seconds, seconds + 300]);
    assert.deepEqual(bundle.jwtAuthorities, [], 'WIT-29 its key is none for JWT-SVIDs');

    const wth = createHash('sha256').update(token).digest('base64url');
    const proof = await signJwt(
      { alg: classicKeyTypes[held].jwa, typ: 'wpt+jwt' },
      { aud: 'db', exp: seconds + 30, jti: 'x', wth },
      async (input) => own.sign(input, 'raw'),
    );
    const verified = await verifyWitSvid(token, () => bundle, now, { token: proof, audience: 'db' });
    assert.deepEqual([verified.id, verified.keyId], [id('/web'), slot.id]);

    const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' });
    const { payload } = await jwtVerify(token, publicKey, { typ: 'wit+jwt', currentDate: new Date(now) });
    const bound = await importJWK((payload.cnf as { jwk: object }).jwk);
    await jwtVerify(proof, bound, { typ: 'wpt+jwt', audience: 'db', currentDate: new Date(now) });
  });
}

test('WIT-17 an issuer is there when it is configured, and only then', async () => {
  const { signer } = await authority();
  const { wit } = workload();
  const { token } = await issueWitSvid(signer, { ...profileOf(wit), issuer: 'mutual:example.org' }, now);
  assert.equal(decodeJwt(token).claims.iss, 'mutual:example.org');
});

test('an RSA key may sign proofs by any of the six RSA algorithms, another key by its own alone', () => {
  for (const algorithm of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const)
    assert.equal(workload('rsa-2048', algorithm).wit.algorithm, algorithm);
  for (const [type, algorithm] of [
    ['ec-p256', 'ES384'],
    ['ec-p384', 'ES256'],
    ['ec-p256', 'RS256'],
    ['rsa-2048', 'ES256'],
  ] as const)
    assert.throws(() => workload(type, algorithm), fault('input/invalid', /does not fit the public key/));
});

test('a key that is none, is too weak, or is for no token is refused in words', async () => {
  const ed25519 = Buffer.from(`302a300506032b6570032100${'11'.repeat(32)}`, 'hex');
  const spki = heldKey('x', generateKey('ec-p256').privateKey).publicKey;
  const offCurve = Buffer.concat([spki.subarray(0, -1), Buffer.from([spki.at(-1)! ^ 1])]);
  for (const [key, algorithm, says] of [
    [Buffer.alloc(0), 'ES256', /missing public key/],
    [Buffer.from('no key'), 'ES256', /malformed public key/],
    [Buffer.concat([spki, Buffer.from([0])]), 'ES256', /malformed public key/],
    [Buffer.alloc(100_000, 0x30), 'ES256', /malformed public key/],
    [ed25519, 'EdDSA', /"EdDSA" is not one of those allowed/],
    [ed25519, 'ES256', /does not fit/],
    [spki, '', /"" is not one of those allowed/],
    [spki, 'HS256', /"HS256" is not one of those allowed/],
    [spki, 'none', /"none" is not one of those allowed/],
  ] as const)
    assert.throws(() => readWitKey(key, algorithm), fault('input/invalid', says));
  const { signer } = await authority();
  await assert.rejects(
    issueWitSvid(signer, profileOf(readWitKey(offCurve, 'ES256')), now),
    fault('input/invalid', /malformed public key/),
  );
});

test('a WIT-SVID never outlives its signing key, and an expired one signs nothing', async () => {
  const { signer } = await authority();
  const profile = profileOf(workload().wit);
  const last = await issueWitSvid(signer, profile, signer.notAfter - 2000);
  assert.equal(last.expiresAt, Math.floor(signer.notAfter / 1000));
  await assert.rejects(
    issueWitSvid(signer, profile, signer.notAfter),
    fault('state/refused', /WIT authority has expired/),
  );
});
