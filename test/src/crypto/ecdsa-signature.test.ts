import assert from 'node:assert/strict';
import { createPublicKey, sign, verify } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { integer, sequence } from '../../../src/crypto/der.ts';
import { derSignature, rawSignature } from '../../../src/crypto/ecdsa-signature.ts';
import { fault } from '../../support/fault.ts';

for (const [type, curve, hash] of [
  ['ec-p256', 'P-256', 'sha256'],
  ['ec-p384', 'P-384', 'sha384'],
] as const) {
  test(`${curve} signatures turned into r and s verify as such, short numbers and long`, () => {
    const { privateKey } = generateKey(type);
    const key = { key: createPublicKey(privateKey), dsaEncoding: 'ieee-p1363' } as const;
    // One number in 256 has a leading zero byte: enough signatures to see several.
    for (let index = 0; index < 600; index++) {
      const data = Buffer.from(String(index));
      assert.ok(verify(hash, data, key, rawSignature(sign(hash, data, privateKey), curve)));
    }
  });
}

test('any two numbers come out at their place, with zeros before them', () => {
  const number = fc.bigInt({ min: 1n, max: 2n ** 256n - 1n });
  fc.assert(
    fc.property(number, number, (r, s) => {
      const expected = [r, s].map((value) => value.toString(16).padStart(64, '0')).join('');
      assert.equal(rawSignature(sequence(integer(r), integer(s)), 'P-256').toString('hex'), expected);
    }),
  );
});

test('what is no signature of the curve is refused', () => {
  for (const der of [
    Buffer.alloc(0),
    sequence(integer(1)),
    sequence(integer(0), integer(1)),
    sequence(integer(1), integer(0)),
    sequence(integer(1), integer(1), integer(1)),
    sequence(integer(2n ** 256n), integer(1)),
    Buffer.concat([sequence(integer(1), integer(1)), Buffer.of(0)]),
  ]) {
    assert.throws(() => rawSignature(der, 'P-256'), fault('der/invalid'));
  }
});

test('r and s become DER and again r and s, and what is no signature is refused', () => {
  const number = fc.bigInt({ min: 1n, max: 2n ** 256n - 1n });
  fc.assert(
    fc.property(number, number, (r, s) => {
      const raw = Buffer.from([r, s].map((value) => value.toString(16).padStart(64, '0')).join(''), 'hex');
      assert.deepEqual(derSignature(raw, 'P-256'), sequence(integer(r), integer(s)));
      assert.deepEqual(rawSignature(derSignature(raw, 'P-256'), 'P-256'), raw);
    }),
  );
  assert.throws(() => derSignature(Buffer.alloc(63, 1), 'P-256'), fault('der/invalid', /63 bytes, not 64/));
  assert.throws(() => derSignature(Buffer.alloc(64), 'P-256'), fault('der/invalid', /zero/));
});
