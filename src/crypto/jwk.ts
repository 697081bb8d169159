/** Keys as JSON Web Keys (RFC 7517, RFC 7518 §6): EC on the three curves of JWS, and RSA. */
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { Fault } from '../errors.ts';
import { describeSpki, type JwtAlgorithm, publicKeyOf, rsaLimits } from './algorithms.ts';
import type { Json } from './json.ts';

const curves = ['P-256', 'P-384', 'P-521'];

/** Whether a JWK is of a kind that a token algorithm here uses; says nothing of whether it is well-formed. */
export function isTokenKeyKind({ kty, crv }: { readonly [name: string]: Json }): boolean {
  return kty === 'RSA' || (kty === 'EC' && curves.includes(String(crv)));
}

/**
 * The key in a JWK for which `isTokenKeyKind` holds, as SubjectPublicKeyInfo, DER. Only public members are read: a private
 * key that is there by mistake stays out of memory. Throws `input/invalid`.
 * @param what names it in messages
 */
export function spkiOfJwk(jwk: { readonly [name: string]: Json }, what: string): Buffer {
  const { kty, crv, x, y, n, e } = jwk;
  const parts = kty === 'EC' ? { kty, crv, x, y } : { kty, n, e };
  const numbers = kty === 'EC' ? [x, y] : [n, e];
  const text = (value: unknown): boolean =>
    typeof value === 'string' && value.length <= (rsaLimits.most / 8) * 1.5 && /^[A-Za-z0-9_-]+$/.test(value);
  if (!numbers.every(text))
    throw new Fault('input/invalid', `${what}: its numbers are missing, too large or not base64url`);
  try {
    const spki = createPublicKey({ key: parts as JsonWebKey, format: 'jwk' }).export({ format: 'der', type: 'spki' });
    describeSpki(spki);
    return spki;
  } catch (error) {
    throw new Fault('input/invalid', `${what}: it is not a valid key`, { cause: error });
  }
}

/** The public members of a key (SubjectPublicKeyInfo, DER) as a JWK, in the order others print them. */
export function publicJwk(spki: Buffer): object {
  const { kty, crv, x, y, n, e } = publicKeyOf(spki).export({ format: 'jwk' });
  return kty === 'RSA' ? { kty, n, e } : { kty, crv, x, y };
}

/** A private key as a JWK that says what it signs with, as the Workload API hands it out (WA-38). It is a secret. */
export function privateJwk(key: KeyObject, alg: JwtAlgorithm): object {
  return { ...key.export({ format: 'jwk' }), alg };
}
