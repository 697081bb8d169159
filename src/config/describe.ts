/** What a table says about itself: defaults for the help and completion, rows for `config explain`, and the reference page. */
import { type Option, type Row, rowsBelow, rowsOf, type Table } from '../config.ts';
import type { Reading } from './read.ts';

/** The options that a command line may give. */
export const rowsWithFlag = (table: Table): readonly Row[] => rowsOf(table).filter(({ flag }) => flag !== '');

export interface ExplainRow {
  readonly path: string;
  /** As text; empty when not set, `(set, not shown)` for a secret. */
  readonly value: string;
  /** `--listen`, `MUTUAL_LISTEN`, `server.yaml:3:1`, `default`, or empty. */
  readonly from: string;
  readonly type: string;
  readonly fallback: string;
  readonly flag: string;
  readonly env: string;
  readonly means: string;
}

/** Every option with its value and where it came from. Without options in the reading (it has problems) values are empty. */
export function explain(table: Table, reading?: Reading<object>): ExplainRow[] {
  return rowsOf(table).map(({ path, flag, env, option }) => {
    const value = reading?.options === undefined ? undefined : valueAt(reading.options, path);
    const origin = reading?.origins.get(path);
    return {
      path,
      value: value === undefined ? '' : option.secret ? '(set, not shown)' : option.kind.print(value),
      from:
        value === undefined && origin?.from === 'default'
          ? ''
          : origin === undefined || origin.from === 'none'
            ? ''
            : origin.at,
      type: option.kind.name,
      fallback: fallbackWords(option) ?? '',
      flag,
      env,
      means: option.means,
    };
  });
}

/** The reference page of a program, in Markdown. */
export function referencePage(program: string, table: Table): string {
  const lines = [
    `# Options of the ${program}`,
    '',
    `Flags win over environment variables, those over the file given with \`--config\`, that over the default. The file is`,
    'YAML or JSON, its keys are the paths below; a key that is not here is refused. Durations are whole numbers with units',
    '(`90s`, `1h30m`). Lists repeat their flag, and have commas in a variable.',
    '',
    'Options with ↻ are taken when the configuration is read again, on SIGHUP; see [reload](reload.md).',
    '',
    `\`mutual config explain ${program}\` prints the same with the values in force and where each came from;`,
    `\`mutual config check ${program} --config FILE\` says what is wrong with a file.`,
    '',
    ...sectionLines(rowsOf(table), ''),
  ];
  for (const [heading, means, below] of sections(table, '')) {
    const own = rowsOf(table).filter((row) => below.includes(row.path));
    lines.push('', `## ${heading}`, '', means, '', ...sectionLines(own, heading));
  }
  return `${lines.join('\n')}\n`;
}

function sectionLines(rows: readonly Row[], prefix: string): string[] {
  const own = rows.filter(({ path }) => path.lastIndexOf('.') === (prefix === '' ? -1 : prefix.length));
  if (own.length === 0) return [];
  return [
    '| key | type | default | meaning | flag, variable |',
    '|---|---|---|---|---|',
    ...own.map(({ path, flag, env, option }) => {
      const { kind } = option;
      const words =
        kind.choices === undefined || kind.placeholder === ''
          ? kind.name
          : kind.choices.map((one) => `\`${one}\``).join(', ');
      const fallback = fallbackWords(option);
      const last = fallback === undefined ? (option.presence === 'maybe' ? '' : 'must be given') : `\`${fallback}\``;
      return `| \`${path}\`${option.live ? ' ↻' : ''} | ${words} | ${last} | ${option.means} | ${flag === '' ? '' : `\`${flag}\`<br>`}\`${env}\` |`;
    }),
  ];
}

function* sections(table: Table, prefix: string): Generator<[string, string, string[]]> {
  for (const [key, part] of Object.entries(table)) {
    if (part.is !== 'section') continue;
    const path = `${prefix}${key}`;
    const below = part.table as Table;
    yield [path, part.means, rowsBelow(below, `${path}.`).map((row) => row.path)];
    yield* sections(below, `${path}.`);
  }
}

/** The default in words, or undefined when the option has none. */
export function fallbackWords(option: Option<unknown>): string | undefined {
  if (option.fallback === undefined) return undefined;
  if ('words' in option.fallback) return option.fallback.words;
  const printed = option.kind.print(option.fallback.value);
  return printed === '' ? 'none' : printed;
}

function valueAt(options: object, path: string): unknown {
  let value: unknown = options;
  for (const key of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[key];
  return value;
}
