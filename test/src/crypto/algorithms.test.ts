import assert from 'node:assert/strict';
import { type createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import {
  classicFacts,
  classicKeyTypes,
  describeSpki,
  fitsJwtAlgorithm,
  generateKey,
  generateKeyAside,
  isJwtAlgorithm,
  isMlDsa,
  type JwtAlgorithm,
  jwtAlgorithms,
  type KeyType,
  keyTypeOf,
  keyTypeOfShape,
  keyTypes,
  parseKeyType,
  publicKeyOf,
} from '../../../src/crypto/algorithms.ts';
import { bitString, integer, nothing, objectId, sequence } from '../../../src/crypto/der.ts';
import { verifySignature } from '../../../src/crypto/signature.ts';
import { fault } from '../../support/fault.ts';

const spkiOf = (key: ReturnType<typeof createPublicKey>): Buffer => key.export({ format: 'der', type: 'spki' });

for (const type of [
  'ec-p256',
  'ec-p384',
  'rsa-2048',
  'ml-dsa-44',
  'ml-dsa-65',
  'ml-dsa-87',
] as const satisfies KeyType[]) {
  test(`${type}: made, recognised by object and by bytes, signs what its algorithm identifier says`, async () => {
    for (const pair of [generateKey(type), await generateKeyAside(type)]) {
      const spki = spkiOf(pair.publicKey);
      assert.equal(keyTypeOf(pair.privateKey), type);
      assert.equal(keyTypeOf(pair.publicKey), type);
      const shape = describeSpki(spki);
      assert.equal(keyTypeOfShape(shape), type);
      const { hash, signatureAlgorithm } = keyTypes[type];
      const data = Buffer.from('data');
      const signature = sign(hash, data, pair.privateKey);
      assert.ok(verifySignature(signatureAlgorithm, shape, publicKeyOf(spki), data, signature));
      assert.ok(!verifySignature(signatureAlgorithm, shape, publicKeyOf(spki), Buffer.from('other'), signature));
      const fitting = (Object.keys(jwtAlgorithms) as JwtAlgorithm[]).filter((alg) => fitsJwtAlgorithm(shape, alg));
      if (isMlDsa(type)) assert.deepEqual(fitting, []);
      else assert.ok(fitting.includes(classicKeyTypes[type].jwa));
    }
  });
}

test('a signature algorithm that does not fit the key, or is in no table, verifies nothing', () => {
  const { privateKey, publicKey } = generateKey('ec-p256');
  const shape = describeSpki(spkiOf(publicKey));
  const data = Buffer.from('data');
  assert.ok(
    !verifySignature(keyTypes['rsa-2048'].signatureAlgorithm, shape, publicKey, data, sign('sha256', data, privateKey)),
  );
  const ecdsaWithSha1 = sequence(objectId('1.2.840.10045.4.1'));
  assert.ok(!verifySignature(ecdsaWithSha1, shape, publicKey, data, sign('sha1', data, privateKey)));
});

test('an RSA key that is too small, or larger than the caller allows, verifies nothing', () => {
  for (const [bits, most] of [
    [1024, 8192],
    [3072, 2048],
  ] as const) {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: bits });
    const data = Buffer.from('data');
    const signature = sign('sha256', data, privateKey);
    assert.ok(
      !verifySignature(
        keyTypes['rsa-2048'].signatureAlgorithm,
        describeSpki(spkiOf(publicKey)),
        publicKey,
        data,
        signature,
        most,
      ),
    );
  }
});

test('key types other than ours are refused by name', () => {
  assert.throws(() => parseKeyType('dsa'), fault('input/invalid', /"dsa" is not known/));
  assert.throws(() => parseKeyType('constructor'), fault('input/invalid'));
  assert.equal(parseKeyType('rsa-4096'), 'rsa-4096');
  assert.throws(() => keyTypeOf(generateKeyPairSync('ed25519').publicKey), fault('input/invalid', /ed25519/));
  assert.throws(
    () => keyTypeOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey),
    fault('input/invalid', /secp256k1/),
  );
  assert.throws(
    () => keyTypeOf(generateKeyPairSync('rsa', { modulusLength: 2560 }).publicKey),
    fault('input/invalid', /2560/),
  );
});

const ecId = objectId('1.2.840.10045.2.1');
const rsaId = objectId('1.2.840.113549.1.1.1');
const rsaInfo = (modulus: Buffer, exponent: number): Buffer =>
  sequence(sequence(rsaId, nothing()), bitString(sequence(integer(modulus), integer(exponent))));
const odd = Buffer.alloc(256, 0xff);

const badKeys: [name: string, spki: Buffer, why: RegExp][] = [
  [
    'an unknown curve',
    sequence(sequence(ecId, objectId('1.3.132.0.10')), bitString(Buffer.alloc(65, 4))),
    /curve 1\.3\.132\.0\.10/,
  ],
  [
    'explicit curve parameters',
    sequence(sequence(ecId, sequence(integer(1))), bitString(Buffer.alloc(65, 4))),
    /expected tag 0x06/,
  ],
  [
    'a compressed point',
    sequence(
      sequence(ecId, objectId('1.2.840.10045.3.1.7')),
      bitString(Buffer.concat([Buffer.of(2), Buffer.alloc(32)])),
    ),
    /uncompressed/,
  ],
  [
    'a point of another size',
    sequence(sequence(ecId, objectId('1.3.132.0.34')), bitString(Buffer.alloc(65, 4))),
    /uncompressed P-384/,
  ],
  ['an even RSA exponent', rsaInfo(odd, 4), /exponent/],
  ['an RSA exponent of 1', rsaInfo(odd, 1), /exponent/],
  [
    'an RSA exponent of five bytes',
    sequence(sequence(rsaId, nothing()), bitString(sequence(integer(odd), integer(2n ** 33n + 1n)))),
    /more than 4 bytes/,
  ],
  ['an even RSA modulus', rsaInfo(Buffer.alloc(256, 0xfe), 3), /modulus/],
  ['an enormous RSA modulus', rsaInfo(Buffer.alloc(3000, 0xff), 3), /more than 2048 bytes/],
  ['RSA without its NULL', sequence(sequence(rsaId), bitString(sequence(integer(odd), integer(3)))), /found the end/],
  ['DSA', sequence(sequence(objectId('1.2.840.10040.4.1')), bitString(Buffer.of(1))), /not EC, RSA, Ed25519 or ML-DSA/],
  ['something after the key', Buffer.concat([rsaInfo(odd, 3), Buffer.of(0)]), /left over/],
];
for (const [name, spki, why] of badKeys) {
  test(`a public key with ${name} is refused without arithmetic`, () => {
    assert.throws(() => describeSpki(spki), fault('der/invalid', why));
  });
}

test('a point that is not on its curve is refused when the key is made', () => {
  const spki = sequence(
    sequence(ecId, objectId('1.2.840.10045.3.1.7')),
    bitString(Buffer.concat([Buffer.of(4), Buffer.alloc(64, 7)])),
  );
  describeSpki(spki);
  assert.throws(() => publicKeyOf(spki), fault('der/invalid', /not a valid key/));
});

test('JWT-3 exactly the nine algorithms are known, each for its own kind and curve of key', () => {
  assert.deepEqual(Object.keys(jwtAlgorithms).sort(), [
    'ES256',
    'ES384',
    'ES512',
    'PS256',
    'PS384',
    'PS512',
    'RS256',
    'RS384',
    'RS512',
  ]);
  for (const alg of ['none', 'HS256', 'EdDSA', 'es256', 'toString', '', undefined, null, 256])
    assert.ok(!isJwtAlgorithm(alg));
  assert.ok(fitsJwtAlgorithm({ kind: 'ec', curve: 'P-521' }, 'ES512'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'ec', curve: 'P-384' }, 'ES256'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'ec', curve: 'P-256' }, 'RS256'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'rsa', bits: 2048 }, 'ES256'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'rsa', bits: 1024 }, 'RS256'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'rsa', bits: 16_384 }, 'PS256'));
  assert.ok(!fitsJwtAlgorithm({ kind: 'ed25519' }, 'ES256'));
});

test('ML-DSA: another set verifies nothing, a key of the wrong length is none, and a store elsewhere does not hold it', () => {
  const { privateKey, publicKey } = generateKey('ml-dsa-44');
  const spki = spkiOf(publicKey);
  const shape = describeSpki(spki);
  const data = Buffer.from('data');
  const signature = sign(null, data, privateKey);
  assert.ok(verifySignature(keyTypes['ml-dsa-44'].signatureAlgorithm, shape, publicKey, data, signature));
  assert.ok(!verifySignature(keyTypes['ml-dsa-65'].signatureAlgorithm, shape, publicKey, data, signature));
  const shorter = Buffer.from(spki);
  shorter[shorter.indexOf(Buffer.from('60864801650304031 1'.replace(' ', ''), 'hex')) + 8] = 0x12;
  assert.throws(() => describeSpki(shorter), fault('der/invalid', /an ML-DSA-65 key has 1952 bytes/));
  assert.throws(
    () => classicFacts('ml-dsa-65', 'AWS KMS'),
    fault('state/refused', /AWS KMS cannot hold a key of type "ml-dsa-65"/),
  );
});
