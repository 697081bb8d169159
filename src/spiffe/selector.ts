/**
 * Selectors: facts about a node or a workload, `type:value`. A type holds no ":", so the text form is unambiguous and
 * serves as the value itself.
 */
import { Fault, quote } from '../errors.ts';

declare const selectorBrand: unique symbol;
export type Selector = string & { readonly [selectorBrand]: true };

/** Makes a selector from its two parts. Throws `input/invalid`. */
export function makeSelector(type: string, value: string): Selector {
  if (type === '') throw invalid(`${type}:${value}`, 'its type is empty');
  if (type.includes(':')) throw invalid(type, 'its type contains ":"');
  if (value === '') throw invalid(`${type}:${value}`, 'its value is empty');
  if (type.includes('\0') || value.includes('\0')) throw invalid(`${type}:${value}`, 'it contains a NUL');
  return `${type}:${value}` as Selector;
}

/** Reads `type:value`. Throws `input/invalid`. */
export function parseSelector(text: string): Selector {
  const colon = text.indexOf(':');
  if (colon < 0) throw invalid(text, 'it has no ":"');
  return makeSelector(text.slice(0, colon), text.slice(colon + 1));
}

export const selectorType = (selector: Selector): string => selector.slice(0, selector.indexOf(':'));
export const selectorValue = (selector: Selector): string => selector.slice(selector.indexOf(':') + 1);

/** Sorted, without doubles: the canonical order everywhere. */
export function selectorSet(selectors: Iterable<Selector>): readonly Selector[] {
  return [...new Set(selectors)].sort();
}

/** Whether every one of `wanted` is in `held`. An empty `wanted` matches nothing. */
export function matches(wanted: readonly Selector[], held: ReadonlySet<Selector>): boolean {
  if (wanted.length === 0) return false;
  for (const selector of wanted) if (!held.has(selector)) return false;
  return true;
}

function invalid(text: string, why: string): Fault {
  return new Fault('input/invalid', `selector ${quote(text)} is not valid: ${why}`, {
    hint: 'Write TYPE:VALUE, such as unix:uid:1000.',
  });
}
