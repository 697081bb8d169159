/** WIT-SVIDs (WIT-1 to WIT-18): the subject comes from a stored entry or an operator, of the request only the public key. */
import {
  describeSpki,
  fitsJwtAlgorithm,
  isJwtAlgorithm,
  type JwtAlgorithm,
  jwtAlgorithms,
} from '../../src/crypto/algorithms.ts';
import { publicJwk } from '../../src/crypto/jwk.ts';
import { signJwt } from '../../src/crypto/jwt.ts';
import { choosePlace, type Place } from '../../src/crypto/workplace.ts';
import { Fault, quote } from '../../src/errors.ts';
import { signAt } from '../../src/keys/key-store.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { backdate } from '../../src/spiffe/lifetime.ts';
import type { WitSigner } from '../authority/wit.ts';
import { type IssuedToken, lifeOf } from './token.ts';

/** The key that a workload is to prove itself with. */
export interface WitKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  /** What it signs proofs with: the `alg` of its JWK (WIT-10). */
  readonly algorithm: JwtAlgorithm;
}

export interface WitProfile {
  readonly id: SpiffeId;
  readonly key: WitKey;
  /** Milliseconds; cut to what is left of the signing key. */
  readonly ttl: number;
  readonly issuer: string | undefined;
  /** The `jti`, of enough randomness never to come twice (WIT-11). */
  readonly tokenId: string;
}

/** Reads the key of a request. Throws `input/invalid` for one that is no key, or does not fit the algorithm. */
export function readWitKey(publicKey: Buffer, algorithm: string): WitKey {
  if (publicKey.length === 0) throw new Fault('input/invalid', 'missing public key');
  if (!isJwtAlgorithm(algorithm)) {
    throw new Fault('input/invalid', `signing algorithm ${quote(algorithm)} is not one of those allowed`, {
      hint: `Use one of ${Object.keys(jwtAlgorithms).join(', ')}.`,
    });
  }
  let fits: boolean;
  try {
    fits = fitsJwtAlgorithm(describeSpki(publicKey), algorithm);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('input/invalid', `malformed public key: ${error.message}`, { cause: error });
  }
  if (!fits) throw new Fault('input/invalid', `signing algorithm ${algorithm} does not fit the public key`);
  return { publicKey, algorithm };
}

/** Throws `state/refused` when the signing key has expired, `input/invalid` for a point off its curve. @param now milliseconds */
export async function issueWitSvid(
  signer: WitSigner,
  profile: WitProfile,
  now: number,
  place: Place = choosePlace(),
): Promise<IssuedToken> {
  const { issuedAt, expiresAt } = lifeOf(signer, profile.ttl, now, 'WIT');
  const claims = {
    ...(profile.issuer !== undefined && { iss: profile.issuer }),
    sub: profile.id,
    exp: expiresAt,
    nbf: issuedAt - backdate / 1000,
    iat: issuedAt,
    jti: profile.tokenId,
    cnf: { jwk: { ...jwkOf(profile.key.publicKey), alg: profile.key.algorithm } },
  };
  const header = { alg: signer.algorithm, kid: signer.keyId, typ: 'wit+jwt' } as const;
  const token = await signJwt(header, claims, (input) => signAt(place, signer.key, input, 'raw'));
  return { token, issuedAt, expiresAt };
}

function jwkOf(publicKey: Buffer): object {
  try {
    return publicJwk(publicKey);
  } catch (error) {
    throw new Fault('input/invalid', 'malformed public key: it is not a valid key', { cause: error });
  }
}
