/** The WIT authority: keys that sign WIT-SVIDs. They are in the bundle under a use of their own and sign nothing else (WIT-29). */
import type { Random } from '../../src/run/random.ts';
import type { AuthorityKind } from './authority.ts';
import { type TokenSigner, tokenKind } from './token.ts';

export type WitSigner = TokenSigner;

/** @param lifetime milliseconds */
export function witKind(lifetime: number, random: Random): AuthorityKind<WitSigner> {
  return tokenKind({ name: 'WIT', prefix: 'wit', field: 'witAuthorities' }, lifetime, random);
}
