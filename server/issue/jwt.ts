/** JWT-SVIDs (JWT-1 to JWT-12): the subject comes from a stored entry or an operator, the audience from the caller. */
import { signJwt } from '../../src/crypto/jwt.ts';
import { choosePlace } from '../../src/crypto/workplace.ts';
import { Fault } from '../../src/errors.ts';
import { signAt } from '../../src/keys/key-store.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { JwtSigner } from '../authority/jwt.ts';

export interface JwtProfile {
  readonly id: SpiffeId;
  readonly audience: readonly string[];
  /** Milliseconds; cut to what is left of the key. */
  readonly ttl: number;
  readonly issuer: string | undefined;
  readonly tokenId: string | undefined;
}

export interface IssuedJwtSvid {
  readonly token: string;
  /** Unix seconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

const mostAudiences = 64;
const longestAudience = 1024;

/** Throws `input/invalid` for a useless audience, `state/refused` when the key has expired. @param now milliseconds */
export async function issueJwtSvid(signer: JwtSigner, profile: JwtProfile, now: number): Promise<IssuedJwtSvid> {
  const audience = [...new Set(profile.audience)];
  if (audience.length === 0 || audience.includes(''))
    throw new Fault('input/invalid', 'at least one audience is required, and none may be empty');
  if (audience.length > mostAudiences || audience.some((one) => Buffer.byteLength(one) > longestAudience)) {
    throw new Fault(
      'input/invalid',
      `at most ${mostAudiences} audiences of ${longestAudience} bytes each are possible`,
    );
  }
  const issuedAt = Math.floor(now / 1000);
  const expiresAt = Math.floor(Math.min(now + profile.ttl, signer.notAfter) / 1000);
  if (expiresAt <= issuedAt) {
    throw new Fault('state/refused', 'the JWT authority has expired', { hint: 'A new one is being made: try again.' });
  }
  const claims = {
    ...(profile.issuer !== undefined && { iss: profile.issuer }),
    sub: profile.id,
    aud: audience,
    exp: expiresAt,
    iat: issuedAt,
    ...(profile.tokenId !== undefined && { jti: profile.tokenId }),
  };
  const header = { alg: signer.algorithm, kid: signer.keyId, typ: 'JWT' } as const;
  const token = await signJwt(header, claims, (input) => signAt(choosePlace(), signer.key, input, 'raw'));
  return { token, issuedAt, expiresAt };
}
