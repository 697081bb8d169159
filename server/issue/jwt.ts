/** JWT-SVIDs (JWT-1 to JWT-12): the subject comes from a stored entry or an operator, the audience from the caller. */
import { signJwt } from '../../src/crypto/jwt.ts';
import { choosePlace, type Place } from '../../src/crypto/workplace.ts';
import { Fault } from '../../src/errors.ts';
import { signAt } from '../../src/keys/key-store.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { JwtSigner } from '../authority/jwt.ts';
import { type IssuedToken, lifeOf } from './token.ts';

export interface JwtProfile {
  readonly id: SpiffeId;
  readonly audience: readonly string[];
  /** Milliseconds; cut to what is left of the key. */
  readonly ttl: number;
  readonly issuer: string | undefined;
  readonly tokenId: string | undefined;
}

const mostAudiences = 64;
const longestAudience = 1024;

/**
 * Throws `input/invalid` for a useless audience, `state/refused` when the key has expired.
 * @param now milliseconds
 * @param place where to sign; chosen when it comes to that, if absent
 */
export async function issueJwtSvid(
  signer: JwtSigner,
  profile: JwtProfile,
  now: number,
  place?: Place,
): Promise<IssuedToken> {
  const audience = [...new Set(profile.audience)];
  if (audience.length === 0 || audience.includes(''))
    throw new Fault('input/invalid', 'at least one audience is required, and none may be empty');
  if (audience.length > mostAudiences || audience.some((one) => Buffer.byteLength(one) > longestAudience)) {
    throw new Fault(
      'input/invalid',
      `at most ${mostAudiences} audiences of ${longestAudience} bytes each are possible`,
    );
  }
  const { issuedAt, expiresAt } = lifeOf(signer, profile.ttl, now, 'JWT');
  const claims = {
    ...(profile.issuer !== undefined && { iss: profile.issuer }),
    sub: profile.id,
    aud: audience,
    exp: expiresAt,
    iat: issuedAt,
    ...(profile.tokenId !== undefined && { jti: profile.tokenId }),
  };
  const header = { alg: signer.algorithm, kid: signer.keyId, typ: 'JWT' } as const;
  const token = await signJwt(header, claims, (input) => signAt(place ?? choosePlace(), signer.key, input, 'raw'));
  return { token, issuedAt, expiresAt };
}
