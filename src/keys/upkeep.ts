/**
 * Which keys of a shared store are of no more use, and when to look, as functions of times. A server marks the keys it
 * uses every few hours; a key that was replaced goes after two days, and those of a server that has not been heard of for
 * two weeks go with it. The figures are SPIRE's.
 */

const hour = 3_600_000;
/** A server says this often that it uses its keys. Milliseconds, as all below. */
export const keepAliveEvery: number = 6 * hour;
/** Whoever may still hold a key that another took the place of has this long. */
export const replacedFor: number = 48 * hour;
/** A server that was not heard of for so long is taken for gone, with its keys. */
export const silentFor: number = 14 * 24 * hour;
/** Keys of no use are looked for this often. */
export const disposeEvery: number = 24 * hour;
/** What failed is tried again after this. */
export const retryAfter: number = 5 * 60_000;

/** A key as a shared store tells of it. Times are Unix milliseconds. */
export interface StoredKey {
  /** Which server's. */
  readonly owner: string;
  /** The name; several keys with one name are generations of it. */
  readonly id: string;
  readonly made: number;
  /** When its server last said that it uses it; undefined where the store cannot hold that. */
  readonly used?: number | undefined;
  /** Whether it is what its name means now, where the store says so itself; else the newest of a name is. */
  readonly current?: boolean | undefined;
}

/** Why a key is of no more use. */
export type Uselessness = 'replaced' | 'abandoned';

/**
 * The keys to dispose of.
 * @param keys all of one trust domain; keys of others must not be among them
 * @param owner this server, whose current keys are never disposed of
 */
export function uselessKeys<K extends StoredKey>(
  keys: readonly K[],
  owner: string,
  now: number,
): { key: K; why: Uselessness }[] {
  const newest = new Map<string, number>();
  const nameOf = (key: K): string => JSON.stringify([key.owner, key.id]);
  for (const key of keys) newest.set(nameOf(key), Math.max(newest.get(nameOf(key)) ?? 0, key.made));
  return keys.flatMap((key): { key: K; why: Uselessness }[] => {
    const current = key.current ?? key.made === newest.get(nameOf(key));
    if (!current) return now - key.made >= replacedFor ? [{ key, why: 'replaced' }] : [];
    // A key that its server never marked was used when it was made.
    const silent = key.owner !== owner && key.used !== undefined && now - Math.max(key.used, key.made) >= silentFor;
    return silent ? [{ key, why: 'abandoned' }] : [];
  });
}

/** What is due of the upkeep, and when the next thing is. Times of the last success; undefined when there was none. */
export function upkeepDue(
  last: { kept?: number | undefined; disposed?: number | undefined },
  now: number,
): { keep: boolean; dispose: boolean; next: number } {
  const due = (done: number | undefined, every: number): boolean =>
    // A clock that was set back is no reason to wait for it.
    done === undefined || now - done >= every || done > now;
  const keep = due(last.kept, keepAliveEvery);
  const dispose = due(last.disposed, disposeEvery);
  const next = Math.min(
    keep ? now + keepAliveEvery : (last.kept as number) + keepAliveEvery,
    dispose ? now + disposeEvery : (last.disposed as number) + disposeEvery,
  );
  return { keep, dispose, next };
}
