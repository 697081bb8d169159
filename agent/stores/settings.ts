/**
 * The selectors of an entry whose SVID is stored: not facts about a process, but where it is to go. All are of one type,
 * which is the store's, with values `name:value`.
 */
import { Fault, quote } from '../../src/errors.ts';
import { type Selector, selectorType, selectorValue } from '../../src/spiffe/selector.ts';

export interface Settings {
  /** A setting that may be missing. */
  optional(name: string): string | undefined;
  /** One that may not. Throws `input/invalid`. */
  required(name: string): string;
}

/** The store an entry names. Throws `input/invalid` when its selectors do not name one. */
export function storeNamed(selectors: readonly Selector[]): string {
  const types = [...new Set(selectors.map(selectorType))];
  if (types.length === 1) return types[0]!;
  throw new Fault(
    'input/invalid',
    types.length === 0
      ? 'the entry names no store: it has no selectors'
      : `the entry names more than one store: ${types.map(quote).join(', ')}`,
    { hint: 'Give it selectors of one store, such as files:name:web.' },
  );
}

/**
 * Reads the settings of an entry. Throws `input/invalid` for one that the store does not know or that is given twice: a
 * secret is not put anywhere by half of what was said of the place.
 * @param known the names that the store knows
 */
export function readSettings(selectors: readonly Selector[], known: readonly string[]): Settings {
  const found = new Map<string, string>();
  for (const selector of selectors) {
    const value = selectorValue(selector);
    const colon = value.indexOf(':');
    const name = value.slice(0, Math.max(colon, 0));
    if (colon < 1 || colon === value.length - 1) throw wrong(selector, `expected ${selectorType(selector)}:NAME:VALUE`);
    if (!known.includes(name)) throw wrong(selector, `expected one of ${known.join(', ')}`);
    if (found.has(name)) throw wrong(selector, `${name} is given twice`);
    found.set(name, value.slice(colon + 1));
  }
  const type = storeNamed(selectors);
  return {
    optional: (name) => found.get(name),
    required(name) {
      const value = found.get(name);
      if (value !== undefined) return value;
      throw new Fault('input/invalid', `the entry does not say the ${name} in the store ${quote(type)}`, {
        hint: `Add a selector ${type}:${name}:VALUE.`,
      });
    },
  };
}

/** The refusal of one selector. */
export const wrong = (selector: string, why: string): Fault =>
  new Fault('input/invalid', `selector ${quote(selector)} does not say where to store the SVID: ${why}`);
