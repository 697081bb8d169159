/**
 * Tokens found valid, with the answer they get, so that a service which is shown one token a thousand times has its
 * signature verified once. An answer holds for the very bytes and audience, while the bundle that was used is still the
 * one to use, and until the token's end; everything else is verified anew. Refusals are not kept.
 */
import { LRUCache } from 'lru-cache';
import type { Encoded } from '../src/rpc/serve.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';

interface Kept {
  readonly trustDomain: TrustDomain;
  readonly bundle: Bundle;
  /** What was denied when it was verified: another list, another verification. */
  readonly denied: object;
  /** Unix milliseconds: between these the answer holds. */
  readonly from: number;
  readonly until: number;
  readonly answer: Encoded;
}

export interface ValidatedTokens {
  /** @param bundleOf what the caller may verify against now */
  find(
    token: string,
    audience: string,
    bundleOf: (trustDomain: TrustDomain) => Bundle | undefined,
    denied: object,
    now: number,
  ): Encoded | undefined;
  keep(token: string, audience: string, kept: Kept): void;
}

/** Tokens kept, and the characters of all of them together. */
const most = { tokens: 1_000, characters: 4 << 20 } as const;

export function validatedTokens(): ValidatedTokens {
  const known = new LRUCache<string, Kept>({
    max: most.tokens,
    maxSize: most.characters,
    sizeCalculation: (_kept, key) => key.length,
  });
  // A token holds no space, so the key cannot be read in two ways.
  const keyOf = (token: string, audience: string): string => `${token} ${audience}`;
  return {
    find(token, audience, bundleOf, denied, now) {
      const kept = known.get(keyOf(token, audience));
      if (kept === undefined || kept.denied !== denied) return undefined;
      if (kept.from <= now && now < kept.until && bundleOf(kept.trustDomain) === kept.bundle) return kept.answer;
      return undefined;
    },
    keep(token, audience, kept) {
      if (!token.includes(' ')) known.set(keyOf(token, audience), kept);
    },
  };
}
