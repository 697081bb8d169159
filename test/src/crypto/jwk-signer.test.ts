import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compactVerify, importJWK } from 'jose';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { privateJwk, publicJwk } from '../../../src/crypto/jwk.ts';
import { jwkSigner } from '../../../src/crypto/jwk-signer.ts';
import { signJwt } from '../../../src/crypto/jwt.ts';
import { fault } from '../../support/fault.ts';

const ec = generateKey('ec-p256').privateKey;
const ec384 = generateKey('ec-p384').privateKey;
const rsa = generateKey('rsa-2048').privateKey;

for (const [key, alg] of [
  [ec, 'ES256'],
  [ec384, 'ES384'],
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const).map((alg) => [rsa, alg] as const),
] as const) {
  test(`a key that says ${alg} signs so that jose verifies it, and its public half is that of the key`, async () => {
    const signer = jwkSigner(JSON.stringify(privateJwk(key, alg)));
    assert.equal(signer.alg, alg);
    const token = signJwt({ alg, typ: 'x' }, {}, signer.sign);
    const jwk = { ...publicJwk(signer.publicKey), alg };
    const { protectedHeader } = await compactVerify(token, await importJWK(jwk, alg), { algorithms: [alg] });
    assert.deepEqual(protectedHeader, { alg, typ: 'x' });
  });
}

test('a key without an algorithm takes the one it is told, else the usual one of its kind', () => {
  const silent = (key: typeof ec) => JSON.stringify({ ...privateJwk(key, 'ES256'), alg: undefined });
  assert.deepEqual(
    [jwkSigner(silent(ec)).alg, jwkSigner(silent(rsa)).alg, jwkSigner(silent(rsa), 'PS256').alg],
    ['ES256', 'RS256', 'PS256'],
  );
});

for (const [what, text, says] of [
  ['no JSON', 'secret-secret', /is not a private JSON Web Key/],
  [
    'a public key',
    JSON.stringify({ ...publicJwk(jwkSigner(JSON.stringify(privateJwk(ec, 'ES256'))).publicKey) }),
    /is not a private/,
  ],
  ['a symmetric key', JSON.stringify({ kty: 'oct', k: 'c2VjcmV0' }), /is not a private/],
  ['an algorithm of another curve', JSON.stringify(privateJwk(ec, 'ES384')), /does not fit/],
  ['no such algorithm', JSON.stringify({ ...privateJwk(ec, 'ES256'), alg: 'HS256' }), /"HS256" is not one of/],
  ['endless text', 'x'.repeat(40_000), /longer than/],
] as const) {
  test(`${what} is refused, and the text is not quoted`, () => {
    assert.throws(
      () => jwkSigner(text),
      (error: Error) => {
        fault('input/invalid', says)(error);
        return !error.message.includes('secret-secret') && !error.message.includes('c2VjcmV0');
      },
    );
  });
}
