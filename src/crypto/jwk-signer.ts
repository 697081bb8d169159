/** Signing with a private JSON Web Key, as the Workload API hands one out with a WIT-SVID. */
import { constants, createPrivateKey, createPublicKey, type JsonWebKey, type KeyObject, sign } from 'node:crypto';
import { Fault, quote } from '../errors.ts';
import {
  classicKeyTypes,
  describeSpki,
  fitsJwtAlgorithm,
  isJwtAlgorithm,
  isMlDsa,
  type JwtAlgorithm,
  jwtAlgorithms,
  keyTypeOfShape,
} from './algorithms.ts';
import { parseJsonObject } from './json.ts';

export interface JwkSigner {
  readonly alg: JwtAlgorithm;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  /** A signature as JWS has it. */
  sign(input: Buffer): Buffer;
}

/** The longest text of a key, characters. */
const longest = 32_768;

/**
 * Reads a private key. Its text never stands in an error. Throws `input/invalid`.
 * @param alg what it signs with, where the key itself does not say; without either, what its kind is used for here
 */
export function jwkSigner(text: string, alg?: JwtAlgorithm): JwkSigner {
  if (text.length > longest) throw refused(`it is longer than ${longest} characters`);
  const key = privateKeyOf(text);
  const publicKey = createPublicKey(key.key).export({ format: 'der', type: 'spki' });
  const shape = describeSpki(publicKey);
  const known = keyTypeOfShape(shape);
  const chosen = key.alg ?? alg ?? (known && !isMlDsa(known) ? classicKeyTypes[known].jwa : undefined);
  if (!isJwtAlgorithm(chosen)) throw refused(`its algorithm ${quote(chosen)} is not one of those allowed`);
  if (!fitsJwtAlgorithm(shape, chosen)) throw refused(`its algorithm ${chosen} does not fit it`);
  const hash = `sha${chosen.slice(2)}`;
  const facts = jwtAlgorithms[chosen];
  const asked =
    facts.kind === 'ec'
      ? ({ key: key.key, dsaEncoding: 'ieee-p1363' } as const)
      : chosen.startsWith('PS')
        ? { key: key.key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
        : { key: key.key };
  return { alg: chosen, publicKey, sign: (input) => sign(hash, input, asked) };
}

function privateKeyOf(text: string): { key: KeyObject; alg: unknown } {
  try {
    const jwk = parseJsonObject(text, 'it');
    return { key: createPrivateKey({ key: jwk as JsonWebKey, format: 'jwk' }), alg: jwk.alg };
  } catch {
    // What is wrong with it is not said: it could be told by quoting it.
    throw refused('it is not a private JSON Web Key');
  }
}

function refused(why: string): Fault {
  return new Fault('input/invalid', `key of a WIT-SVID is not valid: ${why}`);
}
