/** What the issue of JWT-SVIDs and of WIT-SVIDs has in common. */
import { Fault } from '../../src/errors.ts';
import type { TokenSigner } from '../authority/token.ts';

export interface IssuedToken {
  readonly token: string;
  /** Unix seconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/**
 * From when to when a token lives, Unix seconds: never longer than its key. Throws `state/refused` when the key has expired.
 * @param ttl milliseconds
 * @param now milliseconds
 */
export function lifeOf(
  signer: TokenSigner,
  ttl: number,
  now: number,
  kind: 'JWT' | 'WIT',
): Pick<IssuedToken, 'issuedAt' | 'expiresAt'> {
  const issuedAt = Math.floor(now / 1000);
  const expiresAt = Math.floor(Math.min(now + ttl, signer.notAfter) / 1000);
  if (expiresAt > issuedAt) return { issuedAt, expiresAt };
  throw new Fault('state/refused', `the ${kind} authority has expired`, {
    hint: 'A new one is being made: try again.',
  });
}
