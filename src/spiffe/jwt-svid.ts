/** JWT-SVIDs: verified against the JWT keys of the trust domain the token itself names, and nothing else (JWT-SVID §4). */
import { isJwtAlgorithm, type JwtAlgorithm } from '../crypto/algorithms.ts';
import { decodeJwt, verifyJwt } from '../crypto/jwt.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle } from './bundle.ts';
import { type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts';
import { instant, iso, keyOf, subjectOf } from './token.ts';

export interface VerifiedJwtSvid {
  readonly id: SpiffeId;
  /** All claims of the token, as JSON values. */
  readonly claims: Record<string, unknown>;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly keyId: string;
}

/** The most leeway a verifier may be given, milliseconds. */
export const longestLeeway = 60_000;

/**
 * Verifies a token for one audience (JWT-1 to JWT-17). Throws `svid/invalid`.
 * @param audience the verifier's own name, which must be among the token's
 * @param bundleOf the bundle of a trust domain, if there is one
 * @param now milliseconds since the epoch
 * @param leeway milliseconds that clocks may differ, 0 to `longestLeeway`
 */
export async function verifyJwtSvid(
  token: string,
  audience: string,
  bundleOf: (trustDomain: TrustDomain) => Bundle | undefined,
  now: number,
  leeway = 0,
): Promise<VerifiedJwtSvid> {
  if (audience === '')
    throw new Fault('input/invalid', 'audience is empty', { hint: 'Give the name the token was asked for.' });
  if (!(leeway >= 0 && leeway <= longestLeeway))
    throw new RangeError(`verifyJwtSvid: a leeway of ${leeway} ms is out of range`);
  const { header, claims } = decodeJwt(token);
  const { alg, keyId } = checkHeader(header);
  const id = subjectOf(claims.sub, refused);
  const expiresAt = checkClaims(claims, audience, now, leeway);

  const trustDomain = trustDomainOf(id);
  const bundle = bundleOf(trustDomain);
  if (bundle === undefined || bundle.trustDomain !== trustDomain)
    throw refused(`no bundle of trust domain ${quote(trustDomain)} is held`);
  const authority = bundle.jwtAuthorities.find((held) => held.keyId === keyId);
  if (authority === undefined) throw refused(`trust domain ${quote(trustDomain)} has no JWT key ${quote(keyId)}`);
  if (authority.expiresAt !== 0 && now >= authority.expiresAt * 1000 + leeway)
    throw refused(`JWT key ${quote(keyId)} has expired`);
  await verifyJwt(token, await keyOf(authority, alg), alg);
  return { id, claims, expiresAt, keyId };
}

const members = new Set(['alg', 'kid', 'typ']);

function checkHeader(header: { readonly [name: string]: unknown }): { alg: JwtAlgorithm; keyId: string } {
  const { alg, kid, typ } = header;
  if (!isJwtAlgorithm(alg)) throw refused(`algorithm ${quote(alg)} is not one of those allowed`);
  const other = Object.keys(header).find((name) => !members.has(name));
  if (other !== undefined) throw refused(`its header has member ${quote(other)}; only alg, kid and typ may be there`);
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE')
    throw refused(`its type ${quote(typ)} is neither "JWT" nor "JOSE"`);
  if (typeof kid !== 'string' || kid === '') throw refused('its header names no key');
  return { alg, keyId: kid };
}

/** Checks audience and times; gives the expiry in milliseconds. */
function checkClaims(
  claims: { readonly [name: string]: unknown },
  audience: string,
  now: number,
  leeway: number,
): number {
  const { aud, exp, nbf, iat } = claims;
  const audiences: unknown[] = Array.isArray(aud) ? aud : aud === undefined ? [] : [aud];
  if (audiences.length === 0) throw refused('it has no audience');
  if (!audiences.every((value) => typeof value === 'string')) throw refused('its audience is not text');
  if (!audiences.includes(audience))
    throw refused(`it is for audience ${quote(audiences)}, not for ${quote(audience)}`);
  if (exp === undefined) throw refused('it has no expiry');
  const expiresAt = instant(exp, 'expiry', refused);
  if (now >= expiresAt + leeway) throw refused(`it expired at ${iso(expiresAt)}; the time here is ${iso(now)}`);
  if (nbf !== undefined && now < instant(nbf, 'first moment', refused) - leeway)
    throw refused(`it is not valid yet; the time here is ${iso(now)}`);
  if (iat !== undefined) instant(iat, 'time of issue', refused);
  return expiresAt;
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('svid/invalid', `JWT-SVID is not valid: ${why}`, { cause });
}
