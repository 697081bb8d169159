/**
 * Who is entitled to what: the sets of selectors that processes have, the entries that each matches, and what was made of
 * those entries. Processes with the same entries share it, and who follows a set keeps the SVIDs of its entries at hand.
 */
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';
import { type Selector, selectorSet } from '../src/spiffe/selector.ts';
import type { AuthorizedEntry } from './authorized.ts';

/** The identities that one set of selectors is entitled to. */
export interface Identities {
  readonly selectors: readonly Selector[];
  /** Oldest first; no entry for stores and none below /spire. */
  readonly entries: readonly AuthorizedEntry[];
  /** Foreign trust domains that an entry federates with and whose bundle is here. */
  readonly federated: readonly Bundle[];
  /** Kept until something that concerns these entries changes, or until `until` (Unix ms), whichever is first. */
  memo<T>(name: string, make: () => { value: T; until: number }): T;
  /** Whether each entry has an SVID to serve, or has been refused one. */
  complete(): boolean;
  /** Calls `told` after each change that concerns these identities, and keeps their SVIDs at hand; the returned function ends it. */
  follow(told: () => void): () => void;
}

/** What the sets are sets of. */
export interface SetPorts {
  /** Unix milliseconds. */
  now(): number;
  /** The entries that workloads with these selectors hold now, oldest first. */
  match(held: ReadonlySet<Selector>): readonly AuthorizedEntry[];
  /** The bundles of these foreign trust domains that are here. */
  bundlesOf(domains: ReadonlySet<TrustDomain>): readonly Bundle[];
  /** Whether the entry has an SVID to serve, or was refused one. */
  settled(entry: AuthorizedEntry): boolean;
  /** Entries are followed from now on, by one more: their SVIDs are wanted. Whether one of them newly is. */
  keep(entries: readonly AuthorizedEntry[]): boolean;
  /** They are followed by one less. */
  release(entries: readonly AuthorizedEntry[]): void;
  /** Some of what was kept are newly wanted. */
  wantMore(): void;
}

export interface IdentitySets {
  /** The identities of whoever has these selectors. The same array is sorted once. */
  of(selectors: Iterable<Selector>): Identities;
  /** The world is another: every follower is brought to it. Gives whom it concerns, to be told when the rest is done. */
  renew(isConcerned: (entries: readonly AuthorizedEntry[]) => boolean): ReadonlySet<Follower>;
  /** Forgets what was made of sets with one of these entries, and tells their followers. */
  changed(entryIds: ReadonlySet<string>): void;
  tell(followers: Iterable<Follower>): void;
}

/** Entries that are the same for several selector sets share what is made of them. */
interface EntrySet {
  readonly key: string;
  entries: readonly AuthorizedEntry[];
  readonly memo: Map<string, { value: unknown; until: number }>;
  readonly users: Set<Follower>;
  references: number;
}

export interface Follower {
  readonly held: ReadonlySet<Selector>;
  seen: number;
  set: EntrySet;
  readonly told: Set<() => void>;
}

/** Selector sets kept beside those that are followed. */
const idleSelectorSets = 1_000;

export function identitySets(ports: SetPorts): IdentitySets {
  const sets = new Map<string, EntrySet>();
  const followers = new Map<string, Follower>();
  const views = new WeakMap<object, Identities>();
  /** How often the world changed. */
  let version = 0;

  const entrySet = (entries: readonly AuthorizedEntry[]): EntrySet => {
    const key = entries.map(({ id }) => id).join('\n');
    let set = sets.get(key);
    if (set === undefined) {
      set = { key, entries, memo: new Map(), users: new Set(), references: 0 };
      sets.set(key, set);
    }
    set.entries = entries;
    set.references++;
    return set;
  };
  const release = (set: EntrySet): void => {
    if (--set.references === 0) sets.delete(set.key);
  };
  /** Brings a follower to the present world; whether it is entitled to something else now. */
  const refresh = (follower: Follower): boolean => {
    if (follower.seen === version) return false;
    follower.seen = version;
    const before = follower.set;
    const after = entrySet(ports.match(follower.held));
    if (follower.told.size > 0) {
      before.users.delete(follower);
      after.users.add(follower);
      // In this order: what both need is never without somebody who follows it.
      const more = ports.keep(after.entries);
      ports.release(before.entries);
      if (more) ports.wantMore();
    }
    follower.set = after;
    release(before);
    return before !== after;
  };
  const forgetIdle = (): void => {
    if (followers.size <= idleSelectorSets) return;
    for (const [key, follower] of followers) {
      if (follower.told.size > 0) continue;
      followers.delete(key);
      release(follower.set);
      return;
    }
  };

  /** The follower of a selector set, brought to the present; made again when it was idle for too long. */
  const followerOf = (held: ReadonlySet<Selector>, key: string): Follower => {
    const there = followers.get(key);
    if (there !== undefined) {
      refresh(there);
      return there;
    }
    const follower: Follower = { held, seen: version, set: entrySet(ports.match(held)), told: new Set() };
    followers.set(key, follower);
    forgetIdle();
    return follower;
  };

  const view = (selectors: readonly Selector[], held: ReadonlySet<Selector>, key: string): Identities => {
    const current = (): EntrySet => followerOf(held, key).set;
    return {
      selectors,
      get entries() {
        return current().entries;
      },
      get federated() {
        return ports.bundlesOf(new Set(current().entries.flatMap((entry) => entry.federatesWith)));
      },
      memo<T>(name: string, make: () => { value: T; until: number }): T {
        const { memo } = current();
        const kept = memo.get(name);
        if (kept !== undefined && kept.until > ports.now()) return kept.value as T;
        const made = make();
        memo.set(name, made);
        return made.value;
      },
      complete: () => current().entries.every(ports.settled),
      follow(told) {
        const follower = followerOf(held, key);
        const isFirst = follower.told.size === 0;
        const one = (): void => told();
        follower.told.add(one);
        if (isFirst) {
          follower.set.users.add(follower);
          if (ports.keep(follower.set.entries)) ports.wantMore();
        }
        return () => {
          if (!follower.told.delete(one) || follower.told.size > 0) return;
          follower.set.users.delete(follower);
          ports.release(follower.set.entries);
        };
      },
    };
  };

  const tell = (told: Iterable<Follower>): void => {
    for (const follower of [...told]) for (const one of [...follower.told]) one();
  };
  /** Whoever uses a set of which `isConcerned` says so; what was made of it is forgotten. */
  const concerned = (isConcerned: (entries: readonly AuthorizedEntry[]) => boolean): Set<Follower> => {
    const found = new Set<Follower>();
    for (const set of sets.values()) {
      if (!isConcerned(set.entries)) continue;
      set.memo.clear();
      for (const follower of set.users) found.add(follower);
    }
    return found;
  };

  return {
    of(selectors) {
      // An attested process brings the same array with each call: sorting it anew would be a tenth of the call.
      let seen = views.get(selectors);
      if (seen === undefined) {
        const sorted = selectorSet(selectors);
        seen = view(sorted, new Set(sorted), sorted.join('\n'));
        views.set(selectors, seen);
      }
      return seen;
    },
    renew(isConcerned) {
      version++;
      const toTell = concerned(isConcerned);
      for (const follower of followers.values()) if (follower.told.size > 0 && refresh(follower)) toTell.add(follower);
      return toTell;
    },
    changed(entryIds) {
      tell(concerned((entries) => entries.some(({ id }) => entryIds.has(id))));
    },
    tell,
  };
}
