/**
 * Reading options by the table of a program: flags over environment over file over default. Whatever is wrong is found in
 * one reading, each fault with its place; the result is complete, typed by the table and frozen. Unknown keys are refused
 * with the nearest known one.
 */
import { type OptionsOf, type Program, type Report, type Row, rowsOf, type Table } from '../config.ts';
import { Fault, quote } from '../errors.ts';
import type { FileNode } from './file.ts';
import type { Kind } from './kinds.ts';
import { nearest } from './nearest.ts';
import { readPlainJson } from './plain-json.ts';

export interface Sources {
  /**
   * What the command line gave, by flag name without dashes (`trust-domain`) or as commander spells it (`trustDomain`).
   * Keys that are no option of the table are left to the caller.
   */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly file?: { readonly path: string; readonly text: string } | undefined;
}

/** Where a value came from. `at`: `--listen`, `MUTUAL_LISTEN`, `server.yaml:3:1` or `default`. */
export interface Origin {
  readonly from: 'flag' | 'env' | 'file' | 'default' | 'none';
  readonly at: string;
}

export interface Reading<O> {
  /** Deep-frozen. Undefined when there are problems. */
  readonly options: O | undefined;
  /** Every fault, each a whole sentence with its place. */
  readonly problems: readonly string[];
  /** What works but is hardly meant. */
  readonly warnings: readonly string[];
  /** By option path. */
  readonly origins: ReadonlyMap<string, Origin>;
}

/**
 * Reads a program's options. Throws one Fault `config/invalid` that lists every problem.
 * @returns the options and the warnings to log once a log is there
 */
export async function readOptions<T extends Table, O = OptionsOf<T>>(
  program: Program<T, O>,
  sources: Sources,
): Promise<Reading<O> & { readonly options: O }> {
  const reading = await inspectOptions(program, sources);
  const { options, problems } = reading;
  if (options !== undefined) return { ...reading, options };
  const text = problems.length === 1 ? problems[0]! : `${problems.length} faults:\n  ${problems.join('\n  ')}`;
  throw new Fault('config/invalid', `the configuration of the ${program.name} cannot be used: ${text}`, {
    hint: `mutual config explain ${program.name} lists every option.`,
  });
}

/** Reads a program's options and tells everything there is to tell; throws nothing. */
export async function inspectOptions<T extends Table, O = OptionsOf<T>>(
  program: Program<T, O>,
  sources: Sources,
): Promise<Reading<O>> {
  const problems: string[] = [];
  const warnings: string[] = [];
  const origins = new Map<string, Origin>();
  const faulty = new Set<string>();
  const values = new Map<string, unknown>();
  const rows = rowsOf(program.table);
  const given = new Map<string, FileNode>();
  const presentSections = new Set<string>();

  if (sources.file !== undefined) {
    const { path, text } = sources.file;
    let root = readPlainJson(path, text);
    if (root === undefined) {
      // Loaded only here: a program starts faster without a parser of YAML.
      const { parseConfigFile } = await import('./file.ts');
      const tree = parseConfigFile(path, text);
      problems.push(...tree.problems);
      root = tree.root;
    }
    if (root !== undefined) collect(program.table, '', root, rows, given, presentSections, problems);
  }
  warnings.push(...strangeVariables(rows, sources.env ?? {}));

  for (const row of rows) {
    const { path, option } = row;
    const found = pick(row, sources, given.get(path));
    origins.set(path, found?.origin ?? { from: option.fallback === undefined ? 'none' : 'default', at: 'default' });
    if (found === undefined) continue;
    markSections(path, presentSections);
    try {
      values.set(path, found.read());
    } catch (error) {
      faulty.add(path);
      const why = error instanceof Fault ? error.message : String(error);
      const said = option.secret ? `is not a ${option.kind.name} that can be used (the value is not shown)` : why;
      problems.push(`${sayWhere(path, found.origin)} ${said}`);
    }
  }

  const isThere = (path: string): boolean =>
    sectionsAbove(program.table, path).every((one) => presentSections.has(one));
  for (const { path, flag, env, option } of rows) {
    if (values.has(path) || faulty.has(path) || !isThere(path)) continue;
    if (option.fallback === undefined) {
      if (option.presence === 'maybe') continue;
      faulty.add(path);
      problems.push(`${path}: is not set; give ${flag}, ${env}, or ${path} in a configuration file`);
      continue;
    }
    if ('value' in option.fallback) values.set(path, option.fallback.value);
    else {
      let whole = true;
      const value = option.fallback.from((other) => {
        if (faulty.has(other)) whole = false;
        return values.get(other);
      });
      if (whole) values.set(path, value);
      else faulty.add(path);
    }
  }

  const options = deepFreeze(build(program.table, '', values, presentSections)) as O;
  const report: Report = {
    fault: (path, message) => problems.push(`${sayWhere(path, origins.get(path))} ${message}`),
    warn: (path, message) => warnings.push(`${sayWhere(path, origins.get(path))} ${message}`),
  };
  for (const rule of program.rules) {
    if (rule.needs.every((path) => !faulty.has(path))) rule.check(options, report);
  }
  const ordered = inReadingOrder(problems, sources.file?.path);
  return { options: problems.length === 0 ? options : undefined, problems: ordered, warnings, origins };
}

/** What the rules of a program find wrong with options that are each fit. */
export function checkRules<T extends Table, O>(program: Program<T, O>, options: O): readonly string[] {
  const faults: string[] = [];
  const report: Report = { fault: (path, message) => faults.push(`${path}: ${message}`), warn: () => {} };
  for (const rule of program.rules) rule.check(options, report);
  return faults;
}

/** The faults of the file from its top to its end, then the others as they were found. */
function inReadingOrder(problems: readonly string[], file: string | undefined): readonly string[] {
  const placeOf = (problem: string): readonly [number, number] => {
    const found =
      file !== undefined && problem.startsWith(`${file}:`) ? /^:(\d+):(\d+):/.exec(problem.slice(file.length)) : null;
    return found === null ? [Number.MAX_SAFE_INTEGER, 0] : [Number(found[1]), Number(found[2])];
  };
  return problems
    .map((problem) => ({ problem, place: placeOf(problem) }))
    .sort((a, b) => a.place[0] - b.place[0] || a.place[1] - b.place[1])
    .map(({ problem }) => problem);
}

/** Walks the file beside the table: leaves go to `given`, what the table does not know becomes a problem. */
function collect(
  table: Table,
  prefix: string,
  node: FileNode,
  rows: readonly Row[],
  given: Map<string, FileNode>,
  presentSections: Set<string>,
  problems: string[],
): void {
  if (node.is !== 'map') {
    // A section named without content, as in `x509pop:`, is there with its defaults.
    if (node.is !== 'null') problems.push(`${node.at}: ${prefix.slice(0, -1)}: is a section; give keys below it`);
    return;
  }
  for (const [key, { at, node: below }] of node.keys) {
    const part = Object.hasOwn(table, key) ? table[key] : undefined;
    const path = `${prefix}${key}`;
    if (part === undefined) {
      problems.push(`${at}: ${path}: is not an option${didYouMean(key, prefix, table, rows)}`);
    } else if (part.is === 'section') {
      markSections(`${path}.`, presentSections);
      collect(part.table as Table, `${path}.`, below, rows, given, presentSections, problems);
    } else if (part.variableOnly) {
      const variable = rows.find((row) => row.path === path)?.env;
      problems.push(`${at}: ${path}: is not taken from a file; set ${variable}`);
    } else {
      given.set(path, below);
    }
  }
}

function didYouMean(key: string, prefix: string, table: Table, rows: readonly Row[]): string {
  const beside = nearest(key, Object.keys(table));
  if (beside !== undefined) return `; did you mean ${quote(prefix + beside)}?`;
  const whole =
    nearest(
      prefix + key,
      rows.map((row) => row.path),
    ) ?? rows.find((row) => row.path.endsWith(`.${key}`))?.path;
  return whole === undefined ? '' : `; did you mean ${quote(whole)}?`;
}

interface Found {
  readonly origin: Origin;
  read(): unknown;
}

/** The strongest source that has the option. */
function pick(row: Row, sources: Sources, node: FileNode | undefined): Found | undefined {
  const { option, flag, env } = row;
  const { kind } = option;
  const name = flag.slice(2);
  const flags = flag === '' ? {} : (sources.flags ?? {});
  const fromFlag = flags[name] ?? flags[name.replaceAll(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())];
  if (fromFlag !== undefined) {
    const texts = Array.isArray(fromFlag) ? fromFlag.map(String) : String(fromFlag);
    return { origin: { from: 'flag', at: flag }, read: () => kind.read(texts) };
  }
  const fromEnv = sources.env?.[env];
  if (fromEnv !== undefined && fromEnv !== '') {
    const read = (): unknown => kind.read(kind.list ? fromEnv.split(',').map((part) => part.trim()) : fromEnv);
    return { origin: { from: 'env', at: env }, read };
  }
  if (node === undefined) return undefined;
  return { origin: { from: 'file', at: node.at }, read: () => kind.read(textsOf(node, kind)) };
}

function textsOf(node: FileNode, kind: Kind<unknown>): string | string[] {
  if (node.is === 'null') throw new Fault('config/invalid', 'is empty; give a value or leave it out');
  if (node.is === 'map') throw new Fault('config/invalid', `is a ${kind.name} and has no keys below it`);
  if (node.is === 'text') {
    if (kind.list) throw new Fault('config/invalid', `${quote(node.text)} is not a list; write [${node.text}]`);
    return node.text;
  }
  return node.items.map((item) => {
    if (item.is !== 'text') throw new Fault('config/invalid', `has something else than a plain value at ${item.at}`);
    return item.text;
  });
}

/** Variables that look like a slip of a known name. Others with our prefix may belong to another program of ours. */
function strangeVariables(rows: readonly Row[], env: Readonly<Record<string, string | undefined>>): string[] {
  const known = rows.map((row) => row.env);
  const plain = new Map(known.map((name) => [name.replaceAll('_', ''), name]));
  return Object.keys(env).flatMap((name) => {
    if (!name.startsWith('MUTUAL_') || known.includes(name)) return [];
    const meant = plain.get(name.replaceAll('_', ''));
    return meant === undefined ? [] : [`${name}: is not read; did you mean ${meant}?`];
  });
}

/** The optional sections a path lies in, outermost first. */
function sectionsAbove(table: Table, path: string): string[] {
  const names: string[] = [];
  let level = table;
  let prefix = '';
  for (const key of path.split('.').slice(0, -1)) {
    const part = level[key];
    if (part?.is !== 'section') break;
    prefix = prefix === '' ? key : `${prefix}.${key}`;
    if (part.presence === 'maybe') names.push(prefix);
    level = part.table as Table;
  }
  return names;
}

function markSections(path: string, present: Set<string>): void {
  const keys = path.split('.').slice(0, -1);
  for (let depth = 1; depth <= keys.length; depth++) present.add(keys.slice(0, depth).join('.'));
}

function build(table: Table, prefix: string, values: Map<string, unknown>, present: Set<string>): object {
  const result: Record<string, unknown> = {};
  for (const [key, part] of Object.entries(table)) {
    const path = `${prefix}${key}`;
    if (part.is === 'option') {
      if (values.has(path)) result[key] = values.get(path);
    } else if (part.presence === 'sure' || present.has(path)) {
      result[key] = build(part.table as Table, `${path}.`, values, present);
    }
  }
  return result;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(deepFreeze);
  }
  return value;
}

function sayWhere(path: string, origin: Origin | undefined): string {
  if (origin === undefined || origin.from === 'default' || origin.from === 'none') return `${path}:`;
  return origin.from === 'file' ? `${origin.at}: ${path}:` : `${origin.at}:`;
}
