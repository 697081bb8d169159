/** What a command is: a summary, typed flags, examples and the work. Everything else (help, completion, docs) is made from it. */
import type { Ports } from './ports.ts';

/** One flag. Its key in a command's table is camelCase; on the command line it is --kebab-case. */
export interface Flag<T> {
  /** The value's placeholder, such as PATH; absent for a flag that takes none. */
  readonly value?: string;
  readonly means: string;
  /** Reads a value as typed. Throws a Fault, which becomes `usage/invalid` with the flag's name. */
  readonly read: (text: string) => unknown;
  /** May be given more than once. */
  readonly many?: boolean;
  readonly required?: boolean;
  readonly default?: T;
  /** The variable that gives the value when the flag does not. */
  readonly env?: string;
  readonly choices?: readonly string[];
  /** What other spellings it has, without dashes and in lower case (see argv.ts). */
  readonly also?: readonly string[];
  /** Takes `true` or `false`, and may stand without a value for `true`. */
  readonly bare?: boolean;
  /** How the default reads in help, where the value alone would not say it. */
  readonly defaultText?: string | undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: a table of flags of any types
export type Flags = Readonly<Record<string, Flag<any>>>;
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

export interface Command<F extends Flags = Flags> {
  /** One line, without a full stop. */
  readonly summary: string;
  /** More, as paragraphs of plain text. */
  readonly about?: string;
  readonly flags: F;
  /** Whole command lines, each with what it does. */
  readonly examples?: readonly (readonly [line: string, does: string])[];
  /**
   * The work. Gives the exit code (nothing: 0); throws Faults.
   * @param called the words it was called by, which tell an alias
   */
  run(values: Values<F>, ports: Ports, called: string): Promise<number | undefined>;
}

/** Types a command by its own flags, then forgets them so that commands fit one table. */
export function command<const F extends Flags>(it: Command<F>): Command {
  return it as unknown as Command;
}

/** `x509SvidTtl` -> `x509-svid-ttl`. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
