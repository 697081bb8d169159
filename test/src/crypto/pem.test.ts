import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { pemDecode, pemEncode, readPrivateKeyPem } from '../../../src/crypto/pem.ts';
import { fault } from '../../support/fault.ts';

test('reads back what it writes, several blocks and text around them', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 }), { minLength: 1, maxLength: 4 }), (all) => {
      const text = all.map((bytes) => `about this one\n${pemEncode('CERTIFICATE', bytes)}`).join('\r\n');
      assert.deepEqual(
        pemDecode(text, 'CERTIFICATE').map((der) => [...der]),
        all.map((bytes) => [...bytes]),
      );
    }),
  );
});

test('writes 64 characters a line, as other tools do', () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  assert.equal(
    pemEncode('PRIVATE KEY', privateKey.export({ format: 'der', type: 'pkcs8' })),
    privateKey.export({ format: 'pem', type: 'pkcs8' }),
  );
});

const refused: [name: string, text: string, why: RegExp][] = [
  ['nothing', '', /bundle\.pem is not PEM: it is empty/],
  ['something else', '{"keys":[]}', /it begins "\{\\"keys\\":\[\]\}"/],
  ['another label', pemEncode('PRIVATE KEY', Buffer.of(1)), /holds a "PRIVATE KEY" block where only "CERTIFICATE"/],
  [
    'another label beside the right one',
    pemEncode('CERTIFICATE', Buffer.of(1)) + pemEncode('PRIVATE KEY', Buffer.of(1)),
    /holds a "PRIVATE KEY" block/,
  ],
  [
    'two labels on one block',
    '-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n',
    /ends it as "PRIVATE KEY"/,
  ],
  ['no base64', '-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n', /not base64/],
  ['base64 that is cut off', '-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n', /not base64/],
  ['no end', '-----BEGIN CERTIFICATE-----\nAAAA\n', /is not PEM/],
];
for (const [name, text, why] of refused) {
  test(`refuses ${name} and says what it found`, () => {
    assert.throws(() => pemDecode(text, 'CERTIFICATE', 'bundle.pem'), fault('input/invalid', why));
  });
}

test('private keys are read from PKCS#8, SEC1 and PKCS#1', () => {
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const texts = [
    [ec, ec.privateKey.export({ format: 'pem', type: 'pkcs8' })],
    [
      ec,
      `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n${ec.privateKey.export({ format: 'pem', type: 'sec1' })}`,
    ],
    [rsa, rsa.privateKey.export({ format: 'pem', type: 'pkcs1' })],
  ] as const;
  for (const [pair, text] of texts)
    assert.ok(createPublicKey(readPrivateKeyPem(String(text), 'key.pem')).equals(pair.publicKey));
});

test('an encrypted, missing, second or broken private key is refused in its own words', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const plain = String(privateKey.export({ format: 'pem', type: 'pkcs8' }));
  const encrypted = String(privateKey.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: 'x' }));
  const legacy = String(privateKey.export({ format: 'pem', type: 'sec1', cipher: 'aes-256-cbc', passphrase: 'x' }));
  assert.throws(
    () => readPrivateKeyPem(encrypted, 'key.pem'),
    fault('input/invalid', /key\.pem holds an encrypted private key/),
  );
  assert.throws(() => readPrivateKeyPem(legacy, 'key.pem'), fault('input/invalid', /encrypted/));
  assert.throws(() => readPrivateKeyPem(plain + plain, 'key.pem'), fault('input/invalid', /holds 2 PEM blocks/));
  assert.throws(
    () => readPrivateKeyPem(pemEncode('CERTIFICATE', Buffer.of(1)), 'key.pem'),
    fault('input/invalid', /"CERTIFICATE" block where a private key/),
  );
  assert.throws(
    () => readPrivateKeyPem(pemEncode('PRIVATE KEY', Buffer.of(1)), 'key.pem'),
    fault('input/invalid', /cannot be read/),
  );
});
