/**
 * JSON Web Tokens as signed compact JWS (RFC 7515 §7.1), and nothing else: no JSON serialization, no encryption.
 * Signing is by hand since it is three lines; verifying is left to jose, which is given a key of exactly one algorithm.
 */
import { webcrypto } from 'node:crypto';
import { compactVerify } from 'jose';
import { Fault } from '../errors.ts';
import { describeSpki, fitsJwtAlgorithm, type JwtAlgorithm, jwtAlgorithms } from './algorithms.ts';
import { type Json, parseJsonObject } from './json.ts';

/** Largest token, characters; checked before anything is decoded. */
export const longestToken = 16_384;

export interface JwtHeader {
  readonly alg: JwtAlgorithm;
  /** Absent where who verifies knows the key from elsewhere. */
  readonly kid?: string;
  readonly typ: string;
}

/**
 * Makes a token. At once when `sign` is synchronous, a promise when it gives one.
 * @param sign signs the input; for ECDSA it gives r and s, not DER (`Key.sign(data, 'raw')`)
 */
export function signJwt(header: JwtHeader, claims: object, sign: (signingInput: Buffer) => Buffer): string;
export function signJwt(
  header: JwtHeader,
  claims: object,
  sign: (signingInput: Buffer) => Promise<Buffer>,
): Promise<string>;
export function signJwt(
  header: JwtHeader,
  claims: object,
  sign: (signingInput: Buffer) => Buffer | Promise<Buffer>,
): string | Promise<string>;
export function signJwt(
  header: JwtHeader,
  claims: object,
  sign: (signingInput: Buffer) => Buffer | Promise<Buffer>,
): string | Promise<string> {
  const input = `${base64url({ alg: header.alg, kid: header.kid, typ: header.typ })}.${base64url(claims)}`;
  const signature = sign(Buffer.from(input, 'latin1'));
  const finish = (bytes: Buffer): string => `${input}.${bytes.toString('base64url')}`;
  return signature instanceof Promise ? signature.then(finish) : finish(signature);
}

export interface DecodedJwt {
  readonly header: { readonly [name: string]: Json };
  readonly claims: { readonly [name: string]: Json };
}

/** Reads a token's header and claims without believing either: the signature is not looked at. Throws `svid/invalid`. */
export function decodeJwt(token: string): DecodedJwt {
  if (token.length > longestToken)
    throw refused(`it is ${token.length} characters long; at most ${longestToken} are read`);
  if (token.trimStart().startsWith('{'))
    throw refused('it is in JSON serialization; only the compact form is accepted');
  const parts = token.split('.', 6);
  if (parts.length !== 3)
    throw refused(`a signed token has 3 parts, this one has ${parts.length === 6 ? 'more than 5' : parts.length}`);
  const [header, claims, signature] = parts as [string, string, string];
  if (signature === '') throw refused('it has no signature');
  unbase64url(signature, 'signature');
  return { header: object(header, 'header'), claims: object(claims, 'claims') };
}

/**
 * Verifies a token's signature. Throws `svid/invalid`.
 * @param key of the algorithm `alg`, from `importJwtKey`
 */
export async function verifyJwt(token: string, key: webcrypto.CryptoKey, alg: JwtAlgorithm): Promise<void> {
  try {
    await compactVerify(token, key, { algorithms: [alg] });
  } catch (error) {
    throw refused('its signature does not verify', error);
  }
}

/**
 * Makes the key that `verifyJwt` takes; keep it, since making one costs more than using it.
 * Throws `svid/invalid` when the key does not fit the algorithm (ES256 with a P-384 key) or is too small or too large.
 * @param spki SubjectPublicKeyInfo, DER
 */
export async function importJwtKey(spki: Buffer, alg: JwtAlgorithm): Promise<webcrypto.CryptoKey> {
  if (!fitsJwtAlgorithm(describeSpki(spki, 'JWT authority key'), alg))
    throw refused(`its algorithm ${alg} does not fit the key it names`);
  try {
    return await webcrypto.subtle.importKey('spki', new Uint8Array(spki), jwtAlgorithms[alg].webCrypto, false, [
      'verify',
    ]);
  } catch (error) {
    throw refused('the key it names is not a valid key', error);
  }
}

const base64url = (value: object): string => Buffer.from(JSON.stringify(value), 'utf8').toString('base64url');
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function object(part: string, what: string): { [name: string]: Json } {
  const bytes = unbase64url(part, what);
  try {
    return parseJsonObject(utf8.decode(bytes), `its ${what}`, 'number');
  } catch (error) {
    throw refused(error instanceof Fault ? error.message : `its ${what} is not UTF-8`, error);
  }
}

/** Base64url without padding, in its one canonical form: a token must not have a second spelling. */
function unbase64url(part: string, what: string): Buffer {
  const bytes = Buffer.from(part, 'base64url');
  if (part === '' || bytes.toString('base64url') !== part) throw refused(`its ${what} is not canonical base64url`);
  return bytes;
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('svid/invalid', `token is not valid: ${why}`, { cause });
}
