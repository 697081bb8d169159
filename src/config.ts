/**
 * The declaration of a program's options: one table, from which they are read (config/read.ts), the reference page,
 * `config explain` and the help are made (config/describe.ts), and changed while a program runs (config/live.ts).
 */
import type { Kind } from './config/kinds.ts';

/** One option. `maybe`: it has no default and may be left out. */
export interface Option<T, Presence extends 'sure' | 'maybe' = 'sure' | 'maybe'> {
  readonly is: 'option';
  readonly presence: Presence;
  readonly kind: Kind<T>;
  /** One or two sentences for the reference page and the help. */
  readonly means: string;
  readonly fallback?: Fallback<T>;
  /** Never printed: not by `explain`, not in a fault. */
  readonly secret: boolean;
  /** The environment variable, where it is not `MUTUAL_` and the path. */
  readonly env?: string;
  /** Taken from its variable alone: others can read a command line, and files are copied. */
  readonly variableOnly?: true;
  /** Taken when the configuration is read again while the program runs (src/config/live.ts). */
  readonly live?: true;
}

/** A default: a value, or one made from other options with the words that describe it. */
export type Fallback<T> = { readonly value: T } | { readonly words: string; readonly from: (of: Lookup) => T };

/** Reads another option's final value by its path, which must stand earlier in the table. */
export type Lookup = (path: string) => unknown;

/** Options that belong together. A `maybe` section is there only when one of its keys was given somewhere. */
export interface Section<T extends Table, Presence extends 'sure' | 'maybe' = 'sure' | 'maybe'> {
  readonly is: 'section';
  readonly presence: Presence;
  readonly means: string;
  readonly table: T;
}

// biome-ignore lint/suspicious/noExplicitAny: a table holds options of every type; OptionsOf gives each its own.
export type Table = { readonly [key: string]: Option<any> | Section<any> };

type ValueOf<T> = T extends Option<infer V> ? V : T extends Section<infer S> ? OptionsOf<S> : never;
type MaybeKeys<T> = { [K in keyof T]: T[K] extends { readonly presence: 'sure' } ? never : K }[keyof T];

/** The type of the options a table declares. */
export type OptionsOf<T> = { readonly [K in Exclude<keyof T, MaybeKeys<T>>]: ValueOf<T[K]> } & {
  readonly [K in MaybeKeys<T>]?: ValueOf<T[K]>;
};

interface Extras {
  secret?: true;
  env?: string;
  variableOnly?: true;
}

/** An option that must be given. */
export function required<T>(kind: Kind<T>, means: string, extras: Extras = {}): Option<T, 'sure'> {
  return { is: 'option', presence: 'sure', kind, means, secret: false, ...extras };
}

/** An option that may be left out. */
export function optional<T>(kind: Kind<T>, means: string, extras: Extras = {}): Option<T, 'maybe'> {
  return { is: 'option', presence: 'maybe', kind, means, secret: false, ...extras };
}

/** An option with a default. */
export function setting<T>(kind: Kind<T>, fallback: T, means: string, extras: Extras = {}): Option<T, 'sure'> {
  return { is: 'option', presence: 'sure', kind, means, fallback: { value: fallback }, secret: false, ...extras };
}

/** An option whose default follows from options before it in the table; `words` says how. */
export function derived<T>(
  kind: Kind<T>,
  words: string,
  from: (of: Lookup) => T,
  means: string,
  extras: Extras = {},
): Option<T, 'sure'> {
  return { is: 'option', presence: 'sure', kind, means, fallback: { words, from }, secret: false, ...extras };
}

export function section<const T extends Table>(means: string, table: T): Section<T, 'sure'> {
  return { is: 'section', presence: 'sure', means, table };
}

export function optionalSection<const T extends Table>(means: string, table: T): Section<T, 'maybe'> {
  return { is: 'section', presence: 'maybe', means, table };
}

/** The same table, of options that are taken while the program runs. Who uses them reads them where they are used. */
export function reloadable<const T extends Table>(table: T): T {
  const marked = Object.entries(table).map(([key, part]) => [
    key,
    part.is === 'option' ? { ...part, live: true } : { ...part, table: reloadable(part.table as Table) },
  ]);
  return Object.fromEntries(marked) as T;
}

/** A check across options. It is left out when one of `needs` (paths) is itself at fault. */
export interface Rule<O> {
  readonly needs: readonly string[];
  check(options: O, report: Report): void;
}

/** Both take the path of the option to blame and the end of a sentence that begins with it. */
export interface Report {
  fault(path: string, message: string): void;
  warn(path: string, message: string): void;
}

/** A program's whole declaration. */
export interface Program<T extends Table, O = OptionsOf<T>> {
  /** `server` or `agent`. */
  readonly name: string;
  readonly table: T;
  readonly rules: readonly Rule<O>[];
}

/** One option of a table with the names it goes by. */
export interface Row {
  /** Path in a file: `rateLimits.attest`. */
  readonly path: string;
  /** `--rate-limits-attest`; empty for what is taken from its variable alone. */
  readonly flag: string;
  /** `MUTUAL_RATE_LIMITS_ATTEST` */
  readonly env: string;
  readonly option: Option<unknown>;
}

/** All options of a table, in its order. */
export function rowsOf(table: Table): readonly Row[] {
  let rows = knownRows.get(table);
  if (rows === undefined) {
    rows = rowsBelow(table, '');
    knownRows.set(table, rows);
  }
  return rows;
}

/** A start asks for them four times. */
const knownRows = new WeakMap<Table, readonly Row[]>();

/** All options of a section, `prefix` being its path and a dot. */
export function rowsBelow(table: Table, prefix: string): readonly Row[] {
  return Object.entries(table).flatMap(([key, part]) => {
    const path = `${prefix}${key}`;
    if (part.is === 'section') return rowsBelow(part.table as Table, `${path}.`);
    const words = path
      .replaceAll('.', '-')
      .replaceAll(/([a-z0-9])([A-Z])/g, '$1-$2')
      .toLowerCase();
    const env = part.env ?? `MUTUAL_${words.replaceAll('-', '_').toUpperCase()}`;
    return [{ path, flag: part.variableOnly ? '' : `--${words}`, env, option: part as Option<unknown> }];
  });
}
