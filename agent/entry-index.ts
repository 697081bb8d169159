/**
 * The authorised entries, found by the selectors a process has. Each entry hangs under one of its selectors, the one that
 * fewest others hang under, so that a look-up touches a handful of candidates however many entries there are.
 */
import { matches, type Selector } from '../src/spiffe/selector.ts';
import type { AuthorizedEntry } from './authorized.ts';

export interface EntryIndex {
  readonly byId: ReadonlyMap<string, AuthorizedEntry>;
  set(entry: AuthorizedEntry): void;
  delete(id: string): boolean;
  /** Every entry whose selectors are all held, oldest first, then by id: the first is the default identity (WA-23). */
  match(held: ReadonlySet<Selector>): readonly AuthorizedEntry[];
}

export function entryIndex(): EntryIndex {
  const byId = new Map<string, AuthorizedEntry>();
  // Most selectors that entries hang under hold one: a set for each would be the larger half of the index.
  const hanging = new Map<Selector, AuthorizedEntry | Set<AuthorizedEntry>>();
  const under = (selector: Selector): Iterable<AuthorizedEntry> => {
    const there = hanging.get(selector);
    return there === undefined ? [] : there instanceof Set ? there : [there];
  };
  const countUnder = (selector: Selector): number => {
    const there = hanging.get(selector);
    return there === undefined ? 0 : there instanceof Set ? there.size : 1;
  };

  const unhook = (entry: AuthorizedEntry): void => {
    for (const selector of entry.selectors) {
      const there = hanging.get(selector);
      if (there === entry) hanging.delete(selector);
      else if (there instanceof Set && there.delete(entry) && there.size === 0) hanging.delete(selector);
      else continue;
      return;
    }
  };
  const hook = (entry: AuthorizedEntry): void => {
    let selector: Selector | undefined;
    let fewest = Number.POSITIVE_INFINITY;
    for (const one of entry.selectors) {
      const count = countUnder(one);
      if (count < fewest) [selector, fewest] = [one, count];
    }
    if (selector === undefined) return;
    const there = hanging.get(selector);
    if (there === undefined) hanging.set(selector, entry);
    else if (there instanceof Set) there.add(entry);
    else hanging.set(selector, new Set([there, entry]));
  };

  return {
    byId,
    set(entry) {
      const before = byId.get(entry.id);
      if (before !== undefined) unhook(before);
      byId.set(entry.id, entry);
      hook(entry);
    },
    delete(id) {
      const entry = byId.get(id);
      if (entry === undefined) return false;
      unhook(entry);
      return byId.delete(id);
    },
    match(held) {
      const found: AuthorizedEntry[] = [];
      for (const selector of held) {
        for (const entry of under(selector)) if (matches(entry.selectors, held)) found.push(entry);
      }
      return found.sort(oldestFirst);
    },
  };
}

/** By creation, then by id: an entry added later never takes the first place. */
export function oldestFirst(one: AuthorizedEntry, other: AuthorizedEntry): number {
  return one.createdAt - other.createdAt || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);
}
