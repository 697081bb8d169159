/**
 * How a WIT-SVID is shown: in two headers, the token and a proof made for one recipient and a few seconds (WIMSE workload
 * proof token), signed by the key that the token is bound to.
 */
import { createHash } from 'node:crypto';
import type { JwtAlgorithm } from '../crypto/algorithms.ts';
import type { JwkSigner } from '../crypto/jwk-signer.ts';
import { decodeJwt, importJwtKey, signJwt, verifyJwt } from '../crypto/jwt.ts';
import { Fault, quote } from '../errors.ts';
import { instant, iso } from './token.ts';

/** The key of a token's `cnf`. */
export interface ProofKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  readonly alg: JwtAlgorithm;
}

export interface VerifiedWitProof {
  /** Its `jti`: what a recipient remembers until `expiresAt`, with its leeway, where a proof may be used once only (WIT-26). */
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** How far ahead a proof may expire, milliseconds: it is made for one request (WIT-24, WIT-25). */
export const longestProof = 60_000;

/** Headers in which a request carries the two, as HTTP gives them: in lower case. */
export const witHeader = 'workload-identity-token';
export const proofHeader = 'workload-proof-token';

/** How long a proof lasts that is made here, milliseconds: what a request and clocks need (WIT-25). */
export const proofLife = 30_000;

/**
 * Makes a proof that whoever shows the token holds its key (WIT-21, WIT-23).
 * @param key the one in the token's `cnf`
 * @param audience the recipient, as it calls itself
 * @param id told by nobody else: a recipient may take it once only (WIT-26)
 * @param now milliseconds since the epoch
 */
export function makeWitProof(wit: string, key: JwkSigner, audience: string, id: string, now: number): string {
  if (audience === '') throw new Fault('input/invalid', 'the audience of a proof is empty');
  const exp = Math.floor((now + proofLife) / 1000);
  const claims = { aud: audience, exp, jti: id, wth: hashOf(wit) };
  return signJwt({ alg: key.alg, typ: 'wpt+jwt' }, claims, (input) => key.sign(input));
}

/**
 * Verifies that a proof was made for this token, for this audience, by the key given. Throws `svid/invalid`.
 * @param wit the token it proves possession for, exactly as presented
 * @param audience the recipient's own name, which must be among the proof's
 * @param now milliseconds since the epoch
 * @param leeway milliseconds that clocks may differ
 */
export async function verifyWitProof(
  proof: string,
  wit: string,
  key: ProofKey,
  audience: string,
  now: number,
  leeway = 0,
): Promise<VerifiedWitProof> {
  const { header, claims } = decodeJwt(proof);
  if (header.typ !== 'wpt+jwt') throw refused(`its type ${quote(header.typ)} is not "wpt+jwt"`);
  if (header.alg !== key.alg) throw refused(`its algorithm ${quote(header.alg)} is not the one of the key, ${key.alg}`);
  if (header.crit !== undefined) throw refused(`its header says that ${quote(header.crit)} must be understood`);
  const { aud, exp, nbf, jti, wth } = claims;
  if (audience === '' || !(Array.isArray(aud) ? aud : [aud]).includes(audience))
    throw refused(`it is for audience ${quote(aud)}, not for ${quote(audience)}`);
  if (typeof jti !== 'string' || jti === '') throw refused('it has no name of its own ("jti")');
  if (wth !== hashOf(wit)) throw refused('it was made for another token');
  if (exp === undefined) throw refused('it has no expiry');
  const expiresAt = instant(exp, 'expiry', refused);
  if (now >= expiresAt + leeway) throw refused(`it expired at ${iso(expiresAt)}; the time here is ${iso(now)}`);
  if (expiresAt > now + longestProof + leeway)
    throw refused(`it expires at ${iso(expiresAt)}, more than ${longestProof / 1000} s from now, ${iso(now)}`);
  if (nbf !== undefined && now < instant(nbf, 'first moment', refused) - leeway)
    throw refused(`it is not valid yet; the time here is ${iso(now)}`);
  await verifyJwt(proof, await importJwtKey(key.publicKey, key.alg), key.alg);
  return { id: jti, expiresAt };
}

/**
 * The token of a request and its proof, undefined where the request has none. A WIT-SVID in `Authorization`, under any
 * scheme, refuses the request (WIT-22): it was sent as if it were a bearer token. Throws `svid/invalid`.
 * @param headers names in any case
 */
export function witFromHeaders(headers: { readonly [name: string]: string | readonly string[] | undefined }): {
  readonly token: string | undefined;
  readonly proof: string | undefined;
} {
  const values = (wanted: string): readonly string[] =>
    Object.entries(headers).flatMap(([name, value]) => (name.toLowerCase() === wanted ? (value ?? []) : []));
  const words = values('authorization').flatMap((value) => value.split(/[\s,="]+/));
  if (words.some(isWit))
    throw new Fault('svid/invalid', 'WIT-SVID is not valid: it was sent in the Authorization header', {
      hint: `Send it as ${witHeader} with a proof as ${proofHeader}.`,
    });
  const one = (name: string): string | undefined => {
    const [first, ...more] = values(name);
    if (more.length > 0) throw new Fault('svid/invalid', `the request has header ${quote(name)} more than once`);
    return first;
  };
  return { token: one(witHeader), proof: one(proofHeader) };
}

const hashOf = (wit: string): string => createHash('sha256').update(wit, 'latin1').digest('base64url');

/** Whether a text is a token that calls itself a WIT-SVID, right or not. */
function isWit(text: string): boolean {
  try {
    return /^(application\/)?wit\+jwt$/i.test(String(decodeJwt(text).header.typ));
  } catch {
    return false;
  }
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('svid/invalid', `proof of possession is not valid: ${why}`, { cause });
}
