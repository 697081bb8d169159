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

/**
 * Cuts one page. The filter comes first and the cut second, so that a filtered listing is never short; the token is the
 * seq of the last item and stays good when items come and go.
 * @param from items in order, at least those with seq above the given one
 * @param size 0 or less: everything
 */
export function cutPage<T extends { readonly seq: number }>(
  from: (after: number) => Iterable<T>,
  keep: (item: T) => boolean,
  size: number,
  token: string,
): Page<T> {
  const items: T[] = [];
  const after = size > 0 ? readToken(token) : 0;
  for (const item of from(after)) {
    if (item.seq <= after || !keep(item)) continue;
    if (size > 0 && items.length === size) return { items, next: String((items.at(-1) as T).seq) };
    items.push(item);
  }
  return { items, next: '' };
}

/**
 * Cuts one page of named things, in the order of their names; the token is the last name, and stays good when others come
 * and go.
 * @param size 0 or less: everything
 */
export function cutPageByName<T>(all: Iterable<T>, nameOf: (item: T) => string, size: number, token: string): Page<T> {
  const after = size > 0 ? token : '';
  if (after !== '' && !/^[a-z0-9._-]{1,255}$/.test(after)) throw notOurs(after);
  const items = [...all].filter((item) => nameOf(item) > after).sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  if (size <= 0 || items.length <= size) return { items, next: '' };
  const page = items.slice(0, size);
  return { items: page, next: nameOf(page.at(-1) as T) };
}

function readToken(token: string): number {
  if (token === '') return 0;
  const seq = Number(token);
  if (/^\d{1,16}$/.test(token) && Number.isSafeInteger(seq)) return seq;
  throw notOurs(token);
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
