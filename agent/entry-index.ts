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
  const hooks = new Map<string, Selector>();
  const hanging = new Map<Selector, Set<string>>();

  const unhook = (id: string): void => {
    const hook = hooks.get(id);
    if (hook === undefined) return;
    hooks.delete(id);
    const there = hanging.get(hook);
    there?.delete(id);
    if (there?.size === 0) hanging.delete(hook);
  };

  return {
    byId,
    set(entry) {
      unhook(entry.id);
      byId.set(entry.id, entry);
      let hook: Selector | undefined;
      let fewest = Number.POSITIVE_INFINITY;
      for (const selector of entry.selectors) {
        const size = hanging.get(selector)?.size ?? 0;
        if (size < fewest) [hook, fewest] = [selector, size];
      }
      if (hook === undefined) return;
      hooks.set(entry.id, hook);
      const there = hanging.get(hook);
      if (there === undefined) hanging.set(hook, new Set([entry.id]));
      else there.add(entry.id);
    },
    delete(id) {
      unhook(id);
      return byId.delete(id);
    },
    match(held) {
      const found: AuthorizedEntry[] = [];
      for (const selector of held) {
        for (const id of hanging.get(selector) ?? []) {
          const entry = byId.get(id)!;
          if (matches(entry.selectors, held)) found.push(entry);
        }
      }
      return found.sort(oldestFirst);
    },
  };
}

/** By creation, then by id: an entry added later never takes the first place. */
export function oldestFirst(one: AuthorizedEntry, other: AuthorizedEntry): number {
  return one.createdAt - other.createdAt || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);
}
