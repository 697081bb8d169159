/**
 * Other spellings of flags. SPIRE's commands take Go's flags: one dash or two, camelCase, `-flag value` or `-flag=value`,
 * booleans as `-flag=false`. Here every spelling is rewritten to `--kebab-case=value` before the parser sees it.
 * A value is never rewritten, whatever it begins with.
 */
import { Fault, quote } from '../src/errors.ts';
import { type Flags, flagName } from './command.ts';

const truths = new Map([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((word) => [word, false] as const),
]);

/** Rewrites the words after a command's name. Unknown flags stay as they are. Throws `usage/invalid`. */
export function rewriteFlags(words: readonly string[], flags: Flags): string[] {
  const spellings = spellingsOf(flags);
  const rewritten: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!;
    if (word === '--') return [...rewritten, ...words.slice(at)];
    if (!word.startsWith('-') || word === '-') {
      rewritten.push(word);
      continue;
    }
    const equals = word.indexOf('=');
    const given = equals < 0 ? word : word.slice(0, equals);
    const key = spellings.get(plain(given));
    if (plain(given) === 'help' || given === '-h') {
      rewritten.push('--help');
    } else if (key === undefined || (given.length === 2 && given !== '-o')) {
      rewritten.push(word);
    } else if (flags[key]!.bare) {
      rewritten.push(`--${flagName(key)}=${equals < 0 || truth(given, word.slice(equals + 1))}`);
    } else if (flags[key]!.value === undefined) {
      if (equals < 0 || truth(given, word.slice(equals + 1))) rewritten.push(`--${flagName(key)}`);
    } else if (equals >= 0) {
      rewritten.push(`--${flagName(key)}=${word.slice(equals + 1)}`);
    } else if (at + 1 < words.length) {
      rewritten.push(`--${flagName(key)}=${words[++at]}`);
    } else {
      rewritten.push(`--${flagName(key)}`);
    }
  }
  return rewritten;
}

/** A spelling without its dashes and in lower case: `-spiffeID`, `--spiffeID` and `--spiffe-id` are one. */
const plain = (given: string): string => given.replaceAll('-', '').toLowerCase();

function spellingsOf(flags: Flags): Map<string, string> {
  const spellings = new Map<string, string>();
  for (const [key, flag] of Object.entries(flags)) for (const other of flag.also ?? []) spellings.set(other, key);
  for (const key of Object.keys(flags)) spellings.set(plain(flagName(key)), key);
  if (flags.output) spellings.set('o', 'output');
  return spellings;
}

function truth(given: string, value: string): boolean {
  const read = truths.get(value);
  if (read !== undefined) return read;
  throw new Fault('usage/invalid', `flag ${given} takes no value but true or false, not ${quote(value)}`);
}
