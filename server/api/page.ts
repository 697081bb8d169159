/** Paging and matching rules that every List and Count call shares. */
import { Fault, quote } from '../../src/errors.ts';
import type { Selector } from '../../src/spiffe/selector.ts';

export type MatchBehavior = 'MATCH_EXACT' | 'MATCH_SUBSET' | 'MATCH_SUPERSET' | 'MATCH_ANY';

/** Whether `held` matches `wanted`: equal, within it, holding all of it, or sharing one. */
export function setMatches<T>(held: readonly T[], wanted: ReadonlySet<T>, how: MatchBehavior): boolean {
  const shared = held.reduce((count, item) => count + (wanted.has(item) ? 1 : 0), 0);
  switch (how) {
    case 'MATCH_EXACT':
      return shared === wanted.size && shared === held.length;
    case 'MATCH_SUBSET':
      // As in SPIRE, what holds nothing is in no one's subset: the question is who has some of these and no others.
      return held.length > 0 && shared === held.length;
    case 'MATCH_SUPERSET':
      return shared === wanted.size;
    case 'MATCH_ANY':
      return shared > 0;
    default:
      throw new Fault('input/invalid', `match behaviour ${quote(how)} is not known`);
  }
}

export interface Page<T> {
  readonly items: readonly T[];
  /** Empty when nothing more matches. */
  readonly next: string;
}

/** The most bytes of a page by the caller's measure: no message passes a megabyte, however many items were asked for. */
const mostBytes = 900 * 1024;

/**
 * Cuts one page. The filter comes first and the cut second, so that a filtered listing is never short; the token is the
 * seq of the last item and stays good when items come and go. A page ends early when it grows too large: the contract
 * lets a server do so, and choose for itself where `size` is 0. Whoever lists has to follow the token. Without a size, a
 * token that is none is ignored, as SPIRE does.
 * @param from items in order, at least those with seq above the given one
 * @param size 0 or less: as many as go into a message
 * @param weigh the bytes of an item, at least
 */
export function cutPage<T extends { readonly seq: number }>(
  from: (after: number) => Iterable<T>,
  keep: (item: T) => boolean,
  size: number,
  token: string,
  weigh: (item: T) => number,
): Page<T> {
  const items: T[] = [];
  const after = size > 0 || isToken(token) ? readToken(token) : 0;
  let bytes = 0;
  for (const item of from(after)) {
    if (item.seq <= after || !keep(item)) continue;
    bytes += weigh(item);
    if ((size > 0 && items.length === size) || (bytes > mostBytes && items.length > 0))
      return { items, next: String((items.at(-1) as T).seq) };
    items.push(item);
  }
  return { items, next: '' };
}

/** How many of them pass. */
export function countOf<T>(all: Iterable<T>, keep: (item: T) => boolean): number {
  let count = 0;
  for (const item of all) if (keep(item)) count += 1;
  return count;
}

/**
 * Cuts one page of named things, in the order of their names; the token is the last name, and stays good when others come
 * and go.
 * @param size 0 or less: as many as go into a message
 * @param weigh the bytes of an item, at least; without it items are taken to be small
 */
export function cutPageByName<T>(
  all: Iterable<T>,
  nameOf: (item: T) => string,
  size: number,
  token: string,
  weigh: (item: T) => number = () => 4096,
): Page<T> {
  if (token !== '' && size > 0 && !/^[a-z0-9._-]{1,255}$/.test(token)) throw notOurs(token);
  const items = [...all].filter((item) => nameOf(item) > token).sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  let end = 0;
  for (let bytes = 0; end < items.length && (size <= 0 || end < size); end += 1) {
    bytes += weigh(items[end] as T);
    if (bytes > mostBytes && end > 0) break;
  }
  const page = items.slice(0, end);
  return { items: page, next: end < items.length ? nameOf(page.at(-1) as T) : '' };
}

function readToken(token: string): number {
  if (token === '') return 0;
  if (isToken(token)) return Number(token);
  throw notOurs(token);
}

function isToken(token: string): boolean {
  return /^\d{1,16}$/.test(token) && Number.isSafeInteger(Number(token));
}

function notOurs(token: string): Fault {
  return new Fault('input/invalid', `page token ${quote(token)} is not one this server gave`, {
    hint: 'Start again without a token.',
  });
}

export interface WireSelectorMatch {
  selectors: { type: string; value: string }[];
  match: MatchBehavior;
}

/** Refuses an empty set, which would match everything or nothing by accident. */
export function requireSelectors(selectors: readonly Selector[], field: string): ReadonlySet<Selector> {
  if (selectors.length > 0) return new Set(selectors);
  throw new Fault('input/invalid', `${field} is malformed: empty selector set`);
}
