/** Which entries come closest to what a process has, for the person who wonders why none matched. */
import { type Selector, selectorType, selectorValue } from '../src/spiffe/selector.ts';
import { type AuthorizedEntry, isForWorkloads } from './authorized.ts';

export interface Near {
  readonly entry: AuthorizedEntry;
  readonly lacking: readonly Selector[];
  /** How many of its selectors the process has. */
  readonly shared: number;
}

/**
 * The entries that lack something, nearest first: those that share most in proportion, then those that speak of the same
 * thing with another value (`unix:uid:0` where the process has `unix:uid:1000`), then the rest; `most` of them.
 * Looks at every entry: for people, never for each call of a workload.
 */
export function nearest(entries: Iterable<AuthorizedEntry>, held: ReadonlySet<Selector>, most: number): Near[] {
  const kinds = new Set([...held].map(kindOf));
  const best: { near: Near; score: number }[] = [];
  for (const entry of entries) {
    if (!isForWorkloads(entry)) continue;
    const lacking = entry.selectors.filter((selector) => !held.has(selector));
    if (lacking.length === 0) continue;
    const shared = entry.selectors.length - lacking.length;
    const alike = lacking.filter((selector) => kinds.has(kindOf(selector))).length;
    const score = shared / entry.selectors.length + alike / (entry.selectors.length * 100);
    const last = best[most - 1];
    if (last !== undefined && last.score >= score) continue;
    best.push({ near: { entry, lacking, shared }, score });
    best.sort((one, other) => other.score - one.score || (one.near.entry.id < other.near.entry.id ? -1 : 1));
    if (best.length > most) best.pop();
  }
  return best.map(({ near }) => near);
}

/** `unix:uid` of `unix:uid:1000`. */
function kindOf(selector: Selector): string {
  const value = selectorValue(selector);
  const colon = value.indexOf(':');
  return `${selectorType(selector)}:${colon < 0 ? '' : value.slice(0, colon)}`;
}
