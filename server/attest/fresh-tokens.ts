/**
 * Join tokens that this server made lately, so that the node which comes with one is not kept waiting while the database
 * is asked for what was said a moment ago. They decide nothing: a token is consumed in the transaction that records its
 * node, and what was consumed, deleted or has expired meanwhile is refused there.
 */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Tokens } from '../store/store.ts';

/** Tokens that are remembered. */
const most = 1_000;

/** The same tokens; each that is created through this is asked for once without the database. */
export function freshTokens(tokens: Tokens): Tokens {
  // By their hashes, as in the database: a token is a secret.
  const fresh = new LRUCache<string, number>({ max: most });
  return {
    async create(token, alias) {
      const outcome = await tokens.create(token, alias);
      if (outcome === 'created') fresh.set(hashOf(token.value), token.expiresAt);
      return outcome;
    },
    async get(value) {
      const key = hashOf(value);
      const expiresAt = fresh.get(key);
      if (expiresAt === undefined) return await tokens.get(value);
      // Who comes a second time with it is told by the database what became of it, before anything is signed.
      fresh.delete(key);
      return { value, expiresAt };
    },
    prune: (now) => tokens.prune(now),
  };
}

const hashOf = (value: string): string => createHash('sha256').update(value).digest('base64');
