/**
 * Options that change while a program runs. Those marked `live` in its table are read anew wherever they are used; all
 * others keep the value of the start. What comes is whole or nothing: it is checked together with what stays.
 */
import { type Option, type Program, rowsOf, type Section, type Table } from '../config.ts';
import { Fault } from '../errors.ts';
import { checkRules } from './read.ts';

export interface Difference {
  readonly path: string;
  /** As text; empty for none, `(not shown)` for a secret. */
  readonly from: string;
  readonly to: string;
  /** Whether it is taken; else it counts from the next start on. */
  readonly live: boolean;
}

export interface Offer<O> {
  readonly differences: readonly Difference[];
  /** What would be in force. */
  readonly options: O;
  accept(): void;
}

export interface LiveOptions<O> {
  /** In force. Each access reads anew, so it must be read where it is used and not before. */
  readonly options: O;
  /** Throws `config/invalid` when the live ones of `next` do not go with the others of the start. */
  offer(next: O): Offer<O>;
}

export function liveOptions<T extends Table, O>(program: Program<T, O>, initial: O): LiveOptions<O> {
  let current = initial;
  const rows = rowsOf(program.table);

  return {
    options: view(program.table, '', initial, () => current) as O,
    offer(next) {
      const options = view(program.table, '', initial, () => next) as O;
      const faults = checkRules(program, options);
      if (faults.length > 0) {
        throw new Fault('config/invalid', `it cannot be taken while the ${program.name} runs: ${faults.join('; ')}`, {
          hint: 'Some of what it needs counts only from the next start on: start again.',
        });
      }
      const differences = rows.flatMap(({ path, option }): Difference[] => {
        const told = (of: unknown): string => (of === undefined ? '' : option.kind.print(of));
        const [from, to] = [told(valueAt(current, path)), told(valueAt(next, path))];
        if (from === to) return [];
        const live = told(valueAt(options, path)) === to;
        // What the file says of what stays was told before, unless it says something else now.
        return [option.secret ? { path, from: hidden(from), to: hidden(to), live } : { path, from, to, live }];
      });
      return {
        differences,
        options,
        accept() {
          current = next;
        },
      };
    },
  };
}

const hidden = (text: string): string => (text === '' ? '' : '(not shown)');

/** An object in which live options are those of `current`, and others those of `initial`. */
function view(table: Table, prefix: string, initial: unknown, current: () => unknown): object {
  const result = {};
  for (const [key, part] of Object.entries(table)) {
    const path = `${prefix}${key}`;
    const isLive = isAllLive(part);
    const there = valueAt(initial, path);
    // A rule may ask whether a key is there.
    if (there === undefined && !isLive) continue;
    const below = part.is === 'section' ? view(part.table as Table, `${path}.`, initial, current) : undefined;
    const get = (): unknown => {
      const value = isLive ? valueAt(current(), path) : there;
      return value === undefined ? undefined : (below ?? value);
    };
    Object.defineProperty(result, key, { enumerable: true, get });
  }
  return result;
}

// biome-ignore lint/suspicious/noExplicitAny: options of every type.
function isAllLive(part: Option<any> | Section<any>): boolean {
  return part.is === 'option' ? part.live === true : Object.values(part.table as Table).every(isAllLive);
}

function valueAt(options: unknown, path: string): unknown {
  let value = options;
  for (const key of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[key];
  return value;
}
