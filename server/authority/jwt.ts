/** The JWT authority: keys that sign JWT-SVIDs. */
import type { Random } from '../../src/run/random.ts';
import type { AuthorityKind } from './authority.ts';
import { type TokenSigner, tokenKind } from './token.ts';

export type JwtSigner = TokenSigner;

/** @param lifetime milliseconds */
export function jwtKind(lifetime: number, random: Random): AuthorityKind<JwtSigner> {
  return tokenKind({ name: 'JWT', prefix: 'jwt', field: 'jwtAuthorities' }, lifetime, random);
}
