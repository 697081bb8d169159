/**
 * JWT-SVIDs, kept for who asks again: by entry and audiences, so that no token of one entry is ever given for another.
 * Past half life a token is fetched anew, and the old one served while that takes too long or fails. Tokens with a `jti`
 * are one for each request and are never kept.
 */
import { LRUCache } from 'lru-cache';
import { decodeJwt } from '../src/crypto/jwt.ts';
import { asFault, Fault, quote, Status } from '../src/errors.ts';
import { type Backoff, delayAfter } from '../src/run/backoff.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { SpiffeId } from '../src/spiffe/id.ts';
import { jwtRenewAt } from '../src/spiffe/lifetime.ts';
import { type AuthorizedEntry, sameRevision } from './authorized.ts';
import type { Cache } from './cache.ts';
import type { ServerLink } from './link.ts';

export interface JwtSvid {
  readonly id: SpiffeId;
  readonly token: string;
  readonly keyId: string;
  /** Unix milliseconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

export interface JwtCache {
  readonly size: number;
  /** When the first token that is kept expires (Unix milliseconds). */
  readonly until: number | undefined;
  /**
   * Fetches tokens anew ahead of their end, so that an outage finds them young: those that were asked for lately, of
   * entries that the agent still holds. Runs until the signal.
   */
  run(signal: AbortSignal): Promise<void>;
  /**
   * A token of the entry for these audiences (sorted, without doubles): at once when a young one is kept, which is why
   * it may give no promise. Throws the server's refusal.
   */
  fetch(entry: AuthorizedEntry, audience: readonly string[]): JwtSvid | Promise<JwtSvid>;
  /** Whether a token that this key signed is kept. */
  usesKey(keyId: string): boolean;
  /** The clock was set: tokens of a later time, which nobody will believe before, are dropped. */
  clockSet(): void;
  clear(): void;
}

interface Kept extends JwtSvid {
  readonly revision: number;
  readonly createdAt: number;
  readonly renewAt: number;
  /** Failures since it was due, and when the next attempt may be made (Unix ms). */
  failures: number;
  retryAt: number;
  /** When somebody last asked for it (Unix ms). */
  askedAt: number;
  readonly audience: readonly string[];
}

/** How long a caller waits for a fresh token when an old one would do, milliseconds. */
const patience = 500;
/** The same request to the server is not repeated sooner after a failure. */
const backoff: Backoff = { first: 1_000, most: 60_000, factor: 2 };
/** How often tokens are looked after, how many are asked for at a time, and for how long after the last use, milliseconds. */
const ahead = { every: 10_000, atOnce: 8, unused: 3_600_000 } as const;
/** The most audiences in a request and bytes in each. */
const caps = { audiences: 100, audience: 2_048 } as const;

export interface JwtPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly link: ServerLink;
  readonly cache: Cache;
  /** Tokens kept at most. */
  readonly capacity: number;
}

export function makeJwtCache({ clock, random, link, cache, capacity }: JwtPorts): JwtCache {
  const tokens = new LRUCache<string, Kept>({ max: capacity });
  const underWay = new Map<string, Promise<JwtSvid>>();

  cache.ownBundle.onChange((bundle) => {
    const tainted = new Set(bundle.jwtAuthorities.filter((authority) => authority.tainted).map(({ keyId }) => keyId));
    if (tainted.size > 0) for (const [key, { keyId }] of tokens.entries()) if (tainted.has(keyId)) tokens.delete(key);
  });

  const isTainted = (id: string): boolean =>
    cache.ownBundle.value.jwtAuthorities.some(({ keyId, tainted }) => tainted && keyId === id);

  const request = async (entry: AuthorizedEntry, audience: readonly string[]): Promise<Kept> => {
    const issued = await link.call((api) => api.newJwtSvid(entry.id, audience));
    const { header } = decodeJwt(issued.token);
    if (issued.id !== entry.spiffeId) {
      throw new Fault(
        'svid/invalid',
        `the server issued a JWT-SVID for ${quote(issued.id)}, not for ${quote(entry.spiffeId)}`,
      );
    }
    return {
      id: issued.id,
      token: issued.token,
      keyId: String(header.kid ?? ''),
      issuedAt: issued.issuedAt,
      expiresAt: issued.expiresAt,
      revision: entry.revision,
      createdAt: entry.createdAt,
      renewAt: jwtRenewAt(issued, random.unit()),
      failures: 0,
      retryAt: 0,
      askedAt: clock.now(),
      audience,
    };
  };

  /** One request at a time for one key, whoever waits for it. */
  const refresh = (key: string, entry: AuthorizedEntry, audience: readonly string[]): Promise<JwtSvid> => {
    const already = underWay.get(key);
    if (already !== undefined) return already;
    const work = request(entry, audience)
      .then((kept) => {
        // Fetched ahead is not asked for.
        const before = tokens.peek(key);
        if (before !== undefined) kept.askedAt = before.askedAt;
        // One that was on its way while its key was tainted is the last of its kind: the next is asked for anew.
        if (!isTainted(kept.keyId)) tokens.set(key, kept);
        return kept;
      })
      .catch((error: unknown) => {
        const old = tokens.peek(key);
        if (old !== undefined)
          old.retryAt = clock.now() + delayAfter(asFault(error), backoff, ++old.failures, random.unit());
        throw error;
      })
      .finally(() => underWay.delete(key));
    underWay.set(key, work);
    return work;
  };

  const usable = (key: string, entry: AuthorizedEntry): Kept | undefined => {
    const kept = tokens.get(key);
    if (kept === undefined) return undefined;
    const isDenied = cache.revocations.value.tokens.denies(kept.id, kept.issuedAt);
    if (kept.expiresAt > clock.now() && !isDenied && sameRevision(kept, entry) && kept.id === entry.spiffeId)
      return kept;
    tokens.delete(key);
    return undefined;
  };

  const renewDue = async (): Promise<void> => {
    const now = clock.now();
    const due: { ends: number; renew: () => Promise<unknown> }[] = [];
    for (const [key, kept] of tokens.entries()) {
      if (now < kept.renewAt || now < kept.retryAt || now - kept.askedAt > ahead.unused) continue;
      const entry = cache.entries.get(key.slice(0, key.indexOf('\n')));
      if (entry !== undefined && sameRevision(kept, entry))
        due.push({ ends: kept.expiresAt, renew: () => refresh(key, entry, kept.audience) });
    }
    due.sort((one, other) => one.ends - other.ends);
    for (let start = 0; start < due.length; start += ahead.atOnce) {
      await Promise.allSettled(due.slice(start, start + ahead.atOnce).map(({ renew }) => renew()));
    }
  };

  return {
    get size() {
      return tokens.size;
    },
    get until() {
      let first: number | undefined;
      for (const { expiresAt } of tokens.values()) first = Math.min(first ?? expiresAt, expiresAt);
      return first;
    },
    async run(signal) {
      for (;;) {
        await sleep(clock, ahead.every * (0.9 + 0.2 * random.unit()), signal);
        await renewDue();
      }
    },
    fetch(entry, audience) {
      if (entry.jwtSvidIncludeJti) return request(entry, audience);
      const key = `${entry.id}\n${JSON.stringify(audience)}`;
      const kept = usable(key, entry);
      if (kept === undefined) return refresh(key, entry, audience);
      const now = clock.now();
      kept.askedAt = now;
      if (now < kept.renewAt || now < kept.retryAt) return kept;
      return freshOrKept(refresh(key, entry, audience), kept, clock);
    },
    clockSet() {
      for (const [key, kept] of tokens.entries()) {
        kept.retryAt = 0;
        kept.askedAt = Math.min(kept.askedAt, clock.now());
        if (kept.issuedAt > clock.now()) tokens.delete(key);
      }
    },
    usesKey: (keyId) => [...tokens.values()].some((kept) => kept.keyId === keyId),
    clear: () => tokens.clear(),
  };
}

/** The fresh token, or the kept one when that takes long or fails for any reason but a refusal of the entry itself. */
function freshOrKept(fresh: Promise<JwtSvid>, kept: JwtSvid, clock: Clock): Promise<JwtSvid> {
  const { promise: late, resolve } = Promise.withResolvers<JwtSvid>();
  const cancel = clock.after(patience, () => resolve(kept));
  const settled = fresh.catch((error: unknown) => {
    const { status } = asFault(error);
    if (status === Status.NOT_FOUND || status === Status.PERMISSION_DENIED) throw error;
    return kept;
  });
  settled.catch(() => {});
  return Promise.race([settled, late]).finally(cancel);
}

/** Audiences as they are asked for and kept: sorted, without doubles. Throws `input/invalid` (WA-28). */
export function readAudience(audience: readonly string[]): readonly string[] {
  const hint = 'Name the service that will receive the token, such as spiffe://example.org/db.';
  if (audience.length === 0)
    throw new Fault('input/invalid', 'audience is empty: expected at least one value', { hint });
  if (audience.length > caps.audiences)
    throw new Fault('input/invalid', `${audience.length} audiences are too many: at most ${caps.audiences}`);
  for (const one of audience) {
    if (one === '') throw new Fault('input/invalid', 'audience holds an empty value', { hint });
    if (Buffer.byteLength(one) > caps.audience)
      throw new Fault('input/invalid', `audience ${quote(one)} is longer than ${caps.audience} bytes`);
  }
  return audience.length === 1 ? audience : [...new Set(audience)].sort();
}
