/** The flags of `server run` and `agent run`, made from the programs' tables of options, and the sources they are read from. */

import { fallbackWords, rowsWithFlag } from '../src/config/describe.ts';
import type { Sources } from '../src/config/read.ts';
import type { Table } from '../src/config.ts';
import { Fault } from '../src/errors.ts';
import type { Flag, Flags } from './command.ts';
import { text } from './flags.ts';
import { readInput } from './input-file.ts';
import type { Ports } from './ports.ts';

const configFlag = text('FILE', 'A configuration file, YAML or JSON');

/** A flag an option. Values stay text: the table reads them together with the file and the variables, and reports every fault. */
export function tableFlags(table: Table, others: Readonly<Record<string, readonly string[]>>): Flags {
  const flags = rowsWithFlag(table).map(({ flag, env, option }): [string, Flag<unknown>] => {
    const { kind, means } = option;
    const key = flag.slice(2).replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    const isToggle = kind.placeholder === '';
    return [
      key,
      {
        value: isToggle ? 'true|false' : kind.placeholder,
        means: means.replace(/\.$/, ''),
        read: (given) => given,
        env,
        // For help alone.
        get defaultText() {
          return fallbackWords(option);
        },
        ...(isToggle ? { bare: true } : kind.choices && { choices: kind.choices }),
        ...(kind.list && { many: true }),
        ...(others[key] && { also: others[key] }),
      },
    ];
  });
  return { config: configFlag, ...Object.fromEntries(flags) };
}

/** Flags, environment and the file that `--config` names. */
export async function sourcesFrom(values: Readonly<Record<string, unknown>>, ports: Ports): Promise<Sources> {
  const { config, ...flags } = values;
  return {
    flags,
    env: ports.env,
    file: typeof config === 'string' ? { path: config, text: await readInput(config, '--config', ports) } : undefined,
  };
}

/** `sourcesFrom`, for a program that reads them again while it runs. */
export function sourcesReader(values: Readonly<Record<string, unknown>>, ports: Ports): () => Promise<Sources> {
  let isRead = false;
  return async () => {
    if (isRead && values.config === '-') {
      throw new Fault('config/invalid', 'the configuration came from standard input, which cannot be read again', {
        hint: 'Give --config a file.',
      });
    }
    isRead = true;
    return sourcesFrom(values, ports);
  };
}

/** SPIRE gives host and port apart: puts `-serverAddress` and `-serverPort` together under one key. */
export function joinHostPort(
  values: Record<string, unknown>,
  target: string,
  host: string,
  port: string,
  fallback: { host: string; port: string },
): Record<string, unknown> {
  const { [host]: givenHost, [port]: givenPort, ...rest } = values;
  if (givenHost === undefined && givenPort === undefined) return rest;
  if (rest[target] !== undefined) {
    throw new Fault('usage/invalid', `--${target} is given together with SPIRE's flags for the same`, {
      hint: `Give --${target} HOST:PORT alone.`,
    });
  }
  const name = String(givenHost ?? fallback.host);
  return { ...rest, [target]: `${name.includes(':') ? `[${name}]` : name}:${givenPort ?? fallback.port}` };
}
