/**
 * Signing what is hashed already, as key services do; Node's own API always hashes. ECDSA by its definition (FIPS 186-5
 * §6.4), with the library's point arithmetic; RSA as PKCS#1 v1.5 over the DigestInfo.
 */
import { constants, createECDH, createPublicKey, type KeyObject, privateEncrypt } from 'node:crypto';
import { nothing, objectId, octetString, sequence } from '../../src/crypto/der.ts';

const hashIds: Readonly<Record<string, string>> = {
  sha256: '2.16.840.1.101.3.4.2.1',
  sha384: '2.16.840.1.101.3.4.2.2',
};
const orders: Readonly<Record<string, bigint>> = {
  prime256v1: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  secp384r1: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
};

/** RSA: the signature. EC: r then s. */
export function signDigest(key: KeyObject, digest: Buffer, hash: string): Buffer {
  if (key.asymmetricKeyType === 'rsa') {
    const info = sequence(sequence(objectId(hashIds[hash]!), nothing()), octetString(digest));
    return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, info);
  }
  const curve = String(key.asymmetricKeyDetails?.namedCurve);
  const n = orders[curve]!;
  const width = n.toString(16).length / 2;
  const number = (bytes: Buffer): bigint => BigInt(`0x${bytes.toString('hex')}`);
  const bytes = (value: bigint): Buffer => Buffer.from(value.toString(16).padStart(2 * width, '0'), 'hex');
  const d = number(Buffer.from(String(key.export({ format: 'jwk' }).d), 'base64url'));
  const z = number(digest.subarray(0, width));
  for (;;) {
    const once = createECDH(curve);
    once.generateKeys();
    const k = number(once.getPrivateKey());
    const r = number(once.getPublicKey().subarray(1, 1 + width)) % n;
    const s = (inverse(k, n) * (z + r * d)) % n;
    if (r !== 0n && s !== 0n) return Buffer.concat([bytes(r), bytes(s)]);
  }
}

export const publicPem = (key: KeyObject): string =>
  String(createPublicKey(key).export({ format: 'pem', type: 'spki' }));
export const publicDer = (key: KeyObject): Buffer => createPublicKey(key).export({ format: 'der', type: 'spki' });

function inverse(value: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [((value % modulus) + modulus) % modulus, modulus, 1n, 0n];
  while (b !== 0n) [a, b, x, y] = [b, a % b, y, x - (a / b) * y];
  return ((x % modulus) + modulus) % modulus;
}
