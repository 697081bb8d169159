/** JWT-SVIDs as issued, for every type of key, verified by our verifier and by jose alone. */
import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { jwtVerify } from 'jose';
import { jwtKind } from '../../../server/authority/jwt.ts';
import { issueJwtSvid } from '../../../server/issue/jwt.ts';
import { type ClassicKeyType, classicKeyTypes } from '../../../src/crypto/algorithms.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Fault } from '../../../src/errors.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { id, td } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1) + 999;
const seconds = Math.floor(now / 1000);
const day = 24 * 3_600_000;
const types = Object.keys(classicKeyTypes) as ClassicKeyType[];

async function authority(type: ClassicKeyType = 'ec-p256') {
  const kind = jwtKind(day, systemRandom);
  const key = await memoryKeys().generate('jwt', type);
  const slot = { ...(await kind.make(key, now)), keyId: 'jwt', tainted: false };
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
const profile = { id: id('/web'), audience: ['db'], ttl: 300_000, issuer: undefined, tokenId: undefined };

for (const type of types) {
  test(`ID-15 JWT-1 JWT-2 JWT-3 JWT-4 JWT-5 JWT-6 JWT-7 JWT-10 JWT-15 a JWT-SVID by a ${type} key is as it must be, to others too`, async () => {
    const { signer, bundle, slot, key } = await authority(type);
    const { token, issuedAt, expiresAt } = await issueJwtSvid(signer, profile, now);
    const { header, claims } = decodeJwt(token);
    const { jwa } = classicKeyTypes[type];
    assert.deepEqual(header, { alg: jwa, kid: slot.id, typ: 'JWT' });
    assert.deepEqual(claims, { sub: 'spiffe://example.org/web', aud: ['db'], exp: seconds + 300, iat: seconds });
    assert.deepEqual([issuedAt, expiresAt], [seconds, seconds + 300]);
    assert.match(slot.id, /^[A-Za-z0-9]{32}$/);
    const verified = await verifyJwtSvid(token, 'db', () => bundle, now);
    assert.deepEqual([verified.id, verified.keyId], [id('/web'), slot.id]);
    const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' });
    const { payload } = await jwtVerify(token, publicKey, { audience: 'db', currentDate: new Date(now) });
    assert.equal(payload.sub, 'spiffe://example.org/web');
    const [published] = bundle.jwtAuthorities;
    assert.deepEqual(
      [published?.keyId, published?.expiresAt, published?.tainted],
      [slot.id, Math.floor((now + day) / 1000), false],
    );
  });
}

test('JWT-12 an issuer and an id are there when they are asked for, and only then', async () => {
  const { signer } = await authority();
  const { token } = await issueJwtSvid(signer, { ...profile, issuer: 'https://issuer', tokenId: 'one' }, now);
  const { claims } = decodeJwt(token);
  assert.deepEqual([claims.iss, claims.jti], ['https://issuer', 'one']);
});

test('JWT-8 an audience is needed; doubles are dropped, the order kept; empty, too many and too long ones refused', async () => {
  const { signer } = await authority();
  const claims = async (audience: string[]) =>
    decodeJwt((await issueJwtSvid(signer, { ...profile, audience }, now)).token).claims;
  assert.deepEqual((await claims(['b', 'a', 'b'])).aud, ['b', 'a']);
  const long = 'x'.repeat(1025);
  for (const audience of [
    [],
    [''],
    ['a', ''],
    Array.from({ length: 65 }, (_, index) => String(index)),
    [long],
    ['é'.repeat(513)],
  ]) {
    await assert.rejects(claims(audience), (error) => error instanceof Fault && error.code === 'input/invalid');
  }
});

test('a JWT-SVID never outlives its key, and an expired key signs nothing', async () => {
  const { signer } = await authority();
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: -10_000, max: day + 10_000 }),
      fc.integer({ min: 1, max: 1e9 }),
      async (past, ttl) => {
        const at = now + past;
        const outcome = await issueJwtSvid(signer, { ...profile, ttl }, at).catch((error: Fault) => error);
        if (outcome instanceof Fault) {
          assert.ok(outcome.code === 'state/refused' && (at >= signer.notAfter - 1000 || ttl < 1000), `${past} ${ttl}`);
        } else {
          assert.ok(outcome.expiresAt * 1000 <= signer.notAfter);
          assert.ok(outcome.expiresAt * 1000 <= at + ttl);
          assert.ok(outcome.expiresAt > outcome.issuedAt);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('key ids use every letter and digit about equally often', async () => {
  const kind = jwtKind(day, systemRandom);
  const key = await memoryKeys().generate('jwt', 'ec-p256');
  const counts = new Map<string, number>();
  for (let made = 0; made < 200; made++)
    for (const letter of (await kind.make(key, now)).id) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  assert.equal(counts.size, 62);
  for (const [letter, count] of counts) assert.ok(count > 40 && count < 200, `${letter}: ${count}`);
});
