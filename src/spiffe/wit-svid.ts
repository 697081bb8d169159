/**
 * WIT-SVIDs: tokens that name a workload and the key it holds (WIT-SVID, incubating). One is believed only together with
 * a proof that its bearer holds that key; alone it is worth nothing, and it is never a bearer token.
 */
import { describeSpki, fitsJwtAlgorithm, isJwtAlgorithm, type JwtAlgorithm } from '../crypto/algorithms.ts';
import { isJsonObject, type Json } from '../crypto/json.ts';
import { isTokenKeyKind, spkiOfJwk } from '../crypto/jwk.ts';
import { decodeJwt, verifyJwt } from '../crypto/jwt.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle } from './bundle.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts';
import { instant, iso, keyOf, subjectOf } from './token.ts';
import { type ProofKey, type VerifiedWitProof, verifyWitProof } from './wit-proof.ts';

export interface VerifiedWitSvid {
  readonly id: SpiffeId;
  /** All claims of the token, as JSON values. */
  readonly claims: Record<string, unknown>;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly keyId: string;
  readonly proof: VerifiedWitProof;
}

/** What came beside a token, and the verifier's own name, which the proof must be for. */
export interface PresentedProof {
  readonly token: string;
  readonly audience: string;
}

/** The most leeway a verifier may be given, milliseconds (WIT-13). */
export const longestWitLeeway = 120_000;

/**
 * Verifies a token and the proof that its bearer holds the key it names (WIT-1 to WIT-21, WIT-29). Throws `svid/invalid`,
 * also when there is no proof.
 * @param bundleOf the bundle of a trust domain, if there is one
 * @param now milliseconds since the epoch
 * @param leeway milliseconds that clocks may differ, 0 to `longestWitLeeway`
 */
export async function verifyWitSvid(
  token: string,
  bundleOf: (trustDomain: TrustDomain) => Bundle | undefined,
  now: number,
  proof?: PresentedProof,
  leeway = 0,
): Promise<VerifiedWitSvid> {
  if (!(leeway >= 0 && leeway <= longestWitLeeway))
    throw new RangeError(`verifyWitSvid: a leeway of ${leeway} ms is out of range`);
  const { header, claims } = decodeJwt(token);
  const { alg, keyId } = checkHeader(header);
  const id = subjectOf(claims.sub, refused);
  const expiresAt = checkClaims(claims, now, leeway);
  const key = confirmedKey(claims.cnf);
  if (proof === undefined) throw refused('it comes without a proof that its bearer holds its key');

  const trustDomain = trustDomainOf(id);
  const bundle = bundleOf(trustDomain);
  if (bundle === undefined || bundle.trustDomain !== trustDomain)
    throw refused(`no bundle of trust domain ${quote(trustDomain)} is held`);
  const authority = bundle.witAuthorities.find((held) => held.keyId === keyId);
  if (authority === undefined) throw refused(`trust domain ${quote(trustDomain)} has no WIT key ${quote(keyId)}`);
  if (authority.expiresAt !== 0 && now >= authority.expiresAt * 1000 + leeway)
    throw refused(`WIT key ${quote(keyId)} has expired`);
  await verifyJwt(token, await keyOf(authority, alg), alg);
  return {
    id,
    claims,
    expiresAt,
    keyId,
    proof: await verifyWitProof(proof.token, token, key, proof.audience, now, leeway),
  };
}

function checkHeader(header: { readonly [name: string]: Json }): { alg: JwtAlgorithm; keyId: string } {
  const { alg, kid, typ, crit } = header;
  if (!isJwtAlgorithm(alg)) throw refused(`algorithm ${quote(alg)} is not one of those allowed`);
  if (typ !== 'wit+jwt') throw refused(`its type ${quote(typ)} is not "wit+jwt"`);
  if (typeof kid !== 'string' || kid === '') throw refused('its header names no key');
  // Members not known are ignored, unless they are said to matter (WIT-7): none that could be said so is known here.
  if (crit !== undefined) throw refused(`its header says that ${quote(crit)} must be understood`);
  return { alg, keyId: kid };
}

/** Checks that there is no audience, and the times; gives the expiry in milliseconds. `jti` means nothing here (WIT-12). */
function checkClaims(claims: { readonly [name: string]: Json }, now: number, leeway: number): number {
  const { exp, nbf, iat } = claims;
  if (Object.hasOwn(claims, 'aud')) throw refused('it has an audience: it may be a JWT-SVID under a false name');
  if (exp === undefined) throw refused('it has no expiry');
  const expiresAt = instant(exp, 'expiry', refused);
  if (now >= expiresAt + leeway) throw refused(`it expired at ${iso(expiresAt)}; the time here is ${iso(now)}`);
  if (nbf !== undefined && now < instant(nbf, 'first moment', refused) - leeway)
    throw refused(`it is not valid yet; the time here is ${iso(now)}`);
  if (iat !== undefined) instant(iat, 'time of issue', refused);
  return expiresAt;
}

/** Members of a JWK that are nobody's but its holder's (RFC 7518 §6). */
const secret = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

/** The key the token is bound to (RFC 7800 §3.2): public, asymmetric, with its algorithm (WIT-9, WIT-10). */
function confirmedKey(cnf: Json | undefined): ProofKey {
  if (!isJsonObject(cnf) || !isJsonObject(cnf.jwk))
    throw refused('it is bound to no key: it has no "cnf" with a "jwk"');
  const { jwk } = cnf;
  const { alg } = jwk;
  if (!isJwtAlgorithm(alg)) throw refused(`algorithm ${quote(alg)} of its "cnf" is not one of those allowed`);
  if (secret.some((name) => Object.hasOwn(jwk, name))) throw refused('its "cnf" holds a key that is not public');
  if (!isTokenKeyKind(jwk)) throw refused('the key of its "cnf" is neither EC nor RSA');
  const publicKey = spki(jwk);
  if (!fitsJwtAlgorithm(describeSpki(publicKey), alg))
    throw refused(`algorithm ${alg} of its "cnf" does not fit the key there`);
  return { publicKey, alg };
}

function spki(jwk: { readonly [name: string]: Json }): Buffer {
  try {
    return spkiOfJwk(jwk, 'the key of its "cnf"');
  } catch (error) {
    throw refused(error instanceof Fault ? error.message : String(error), error);
  }
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('svid/invalid', `WIT-SVID is not valid: ${why}`, { cause });
}
