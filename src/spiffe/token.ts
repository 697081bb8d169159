/** What JWT-SVIDs and WIT-SVIDs share: how a subject and a time are read, and keys made ready once. */
import type { webcrypto } from 'node:crypto';
import type { JwtAlgorithm } from '../crypto/algorithms.ts';
import { importJwtKey } from '../crypto/jwt.ts';
import { Fault, quote } from '../errors.ts';
import type { JwtAuthority } from './bundle.ts';
import { parseId, type SpiffeId } from './id.ts';

/** Makes the Fault of the token being read: `why` follows "... is not valid: ". */
export type Refusal = (why: string, cause?: unknown) => Fault;

/** A token's subject (JWT-6, WIT-8). Throws what `refused` makes. */
export function subjectOf(subject: unknown, refused: Refusal): SpiffeId {
  if (typeof subject !== 'string') throw refused('it has no subject');
  try {
    return parseId(subject);
  } catch (error) {
    throw refused(error instanceof Fault ? error.message : String(error), error);
  }
}

/** NumericDate (RFC 7519 §2) in milliseconds, within what a Date can say. Throws what `refused` makes. */
export function instant(value: unknown, what: string, refused: Refusal): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= 8_640_000_000_000))
    throw refused(`its ${what} ${quote(value)} is not a number of seconds`);
  return value * 1000;
}

/** A time in milliseconds, as messages show it. */
export const iso = (ms: number): string => new Date(ms).toISOString();

/** Imported keys live as long as the authority they belong to: a rotated bundle brings new objects, and the old ones go. */
const imported = new WeakMap<JwtAuthority, Map<JwtAlgorithm, Promise<webcrypto.CryptoKey>>>();

/** The key of an authority, ready to verify `alg`. Rejects with `svid/invalid` when the two do not fit. */
export function keyOf(authority: JwtAuthority, alg: JwtAlgorithm): Promise<webcrypto.CryptoKey> {
  let keys = imported.get(authority);
  if (keys === undefined) {
    keys = new Map();
    imported.set(authority, keys);
  }
  let key = keys.get(alg);
  if (key === undefined) {
    key = importJwtKey(authority.publicKey, alg);
    keys.set(alg, key);
  }
  return key;
}
