import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { importSPKI, jwtVerify, SignJWT } from 'jose';
import { classicKeyTypes, generateKey } from '../../../src/crypto/algorithms.ts';
import { decodeJwt, importJwtKey, longestToken, signJwt, verifyJwt } from '../../../src/crypto/jwt.ts';
import { Fault } from '../../../src/errors.ts';
import { heldKey } from '../../../src/keys/key-store.ts';
import { fault } from '../../support/fault.ts';
import { mutated } from '../../support/mutate.ts';

const claims = { sub: 'spiffe://example.org/a', aud: ['x'], exp: 4_000_000_000 };
const key = heldKey('jwt', generateKey('ec-p256').privateKey);
const token = signJwt({ alg: 'ES256', kid: 'k', typ: 'JWT' }, claims, (data) => key.sign(data, 'raw'));
const b64 = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`tokens signed with ${type} verify here and by jose, and jose's verify here`, async () => {
    const pair = generateKey(type);
    const held = heldKey('k', pair.privateKey);
    const { jwa: alg } = classicKeyTypes[type];
    const ours = signJwt({ alg, kid: 'k', typ: 'JWT' }, claims, (data) => held.sign(data, 'raw'));
    const imported = await importJwtKey(held.publicKey, alg);
    await verifyJwt(ours, imported, alg);
    const theirs = await jwtVerify(
      ours,
      await importSPKI(String(pair.publicKey.export({ format: 'pem', type: 'spki' })), alg),
    );
    assert.deepEqual(theirs.payload, claims);
    assert.deepEqual(theirs.protectedHeader, { alg, kid: 'k', typ: 'JWT' });
    await verifyJwt(
      await new SignJWT(claims).setProtectedHeader({ alg, kid: 'k' }).sign(pair.privateKey),
      imported,
      alg,
    );
  });
}

test('JWT-2 a token that is made carries alg, kid and typ and nothing else', () => {
  const extra = { alg: 'ES256', kid: 'k', typ: 'JWT', jku: 'https://evil.example' } as const;
  const made = signJwt(extra, claims, (data) => key.sign(data, 'raw'));
  assert.deepEqual(decodeJwt(made), { header: { alg: 'ES256', kid: 'k', typ: 'JWT' }, claims });
});

test('a signature that comes later gives a token as well', async () => {
  const later = await signJwt({ alg: 'ES256', kid: 'k', typ: 'JWT' }, claims, async (data) => key.sign(data, 'raw'));
  await verifyJwt(later, await importJwtKey(key.publicKey, 'ES256'), 'ES256');
});

const [head, body, signature] = token.split('.') as [string, string, string];
const refused: [name: string, token: string, why: RegExp][] = [
  ['nothing', '', /has 1/],
  ['two parts', `${head}.${body}`, /has 2/],
  ['JWT-1 five parts, an encrypted token', `${token}.a.b`, /has 5/],
  ['a great many parts', '.'.repeat(10_000), /more than 5/],
  [
    'JWT-1 JSON serialization',
    JSON.stringify({ payload: body, signatures: [{ protected: head, signature }] }),
    /JSON serialization/,
  ],
  ['an empty signature', `${head}.${body}.`, /no signature/],
  ['padding', `${head}.${body}.${signature}=`, /signature is not canonical/],
  ['standard base64', `${head}.${body}.${signature.slice(0, -2)}+/`, /not canonical/],
  ['spaces around it', ` ${token}`, /header is not canonical/],
  ['a newline at its end', `${token}\n`, /signature is not canonical/],
  ['a second spelling of the same bytes', `${head}.${body}.AB`, /signature is not canonical/],
  ['a header that is no JSON', `${b64('{')}.${body}.${signature}`, /header is not JSON/],
  ['a header that is an array', `${b64('[]')}.${body}.${signature}`, /header is not a JSON object/],
  [
    'a header with a member twice',
    `${b64('{"alg":"ES256","alg":"none"}')}.${body}.${signature}`,
    /header has member "alg" twice/,
  ],
  [
    'claims with a member twice',
    `${head}.${b64('{"sub":"a","sub":"b"}')}.${signature}`,
    /claims has member "sub" twice/,
  ],
  ['claims that are not UTF-8', `${head}.${Buffer.of(0x7b, 0xff).toString('base64url')}.${signature}`, /UTF-8/],
  ['more than 16 KB', 'a'.repeat(longestToken + 1), /at most 16384/],
];
for (const [what, bad, why] of refused) {
  test(`refuses ${what}`, () => {
    assert.throws(() => decodeJwt(bad), fault('svid/invalid', why));
  });
}

test('JWT-3 a key is imported only for an algorithm it is for', async () => {
  const p384 = heldKey('k', generateKey('ec-p384').privateKey);
  const rsa = heldKey('k', generateKey('rsa-2048').privateKey);
  for (const [spki, alg] of [
    [p384.publicKey, 'ES256'],
    [rsa.publicKey, 'ES256'],
    [key.publicKey, 'RS256'],
    [key.publicKey, 'ES512'],
  ] as const) {
    await assert.rejects(importJwtKey(spki, alg), fault('svid/invalid', /does not fit/));
  }
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'der', type: 'spki' });
  await assert.rejects(importJwtKey(small, 'RS256'), fault('svid/invalid'));
});

test('a signature in DER, or of another key, or by another algorithm than asked for is refused', async () => {
  const imported = await importJwtKey(key.publicKey, 'ES256');
  const input = Buffer.from(`${head}.${body}`);
  const der = sign('sha256', input, { key: generateKey('ec-p256').privateKey });
  await assert.rejects(
    verifyJwt(`${head}.${body}.${der.toString('base64url')}`, imported, 'ES256'),
    fault('svid/invalid', /does not verify/),
  );
  const other = heldKey('k', generateKey('ec-p256').privateKey);
  await assert.rejects(
    verifyJwt(`${head}.${body}.${other.sign(input, 'raw').toString('base64url')}`, imported, 'ES256'),
    fault('svid/invalid'),
  );
  await assert.rejects(verifyJwt(token, imported, 'ES384'), fault('svid/invalid'));
});

test('damaged tokens: nothing but Faults, and none verifies', async () => {
  const imported = await importJwtKey(key.publicKey, 'ES256');
  await fc.assert(
    fc.asyncProperty(mutated([Buffer.from(token)]), async (bytes) => {
      const text = bytes.toString('latin1');
      if (text === token) return;
      try {
        decodeJwt(text);
        await verifyJwt(text, imported, 'ES256');
        assert.fail('a damaged token verified');
      } catch (error) {
        assert.ok(error instanceof Fault && error.code === 'svid/invalid', String(error));
      }
    }),
    { numRuns: 500 },
  );
});
