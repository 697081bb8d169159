/**
 * npm run docs [-- --check]: writes the pages that are made from tables and tests, or says which of them no longer match.
 * A page written by hand beside its table is wrong within a month; these cannot be.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { agentTable } from '../agent/config.ts';
import { cliReference } from '../cli/reference.ts';
import { serverTable } from '../server/config.ts';
import { referencePage } from '../src/config/describe.ts';
import { faults, Status } from '../src/errors.ts';
import { findAll, readSources, type Source } from './laws/source.ts';
import { root } from './run.ts';
import { readSecurityRecord, securityRecordPage } from './security-record.ts';
import { readTable } from './table.ts';

export interface Requirement {
  readonly id: string;
  readonly level: string;
  readonly text: string;
  /** The document it comes from. */
  readonly section: string;
}

/** Commands are loaded when they are called, so this has to be waited for. */
const commandLine = await cliReference();

/** Every made page by its path. */
export function pages(sources: readonly Source[]): ReadonlyMap<string, string> {
  return new Map([
    ['docs/config-server.md', made(referencePage('server', serverTable), 'server/config.ts')],
    ['docs/config-agent.md', made(referencePage('agent', agentTable), 'agent/config.ts')],
    ['docs/cli.md', made(commandLine, 'cli/commands.ts')],
    ['docs/errors.md', made(errorsPage(), 'src/errors.ts')],
    ['docs/conformance.md', made(conformancePage(readRequirements(), sources), 'the names of the tests')],
    ['docs/security-record.md', made(securityRecordPage(readSecurityRecord(), sources), 'the names of the tests')],
  ]);
}

/** The pages that are not what `npm run docs` would write, one sentence each. */
export function staleDocs(sources: readonly Source[]): string[] {
  return [...pages(sources)].flatMap(([path, text]) => {
    let there: string | undefined;
    try {
      there = readFileSync(join(root, path), 'utf8');
    } catch {
      // Missing: told below.
    }
    if (there === text) return [];
    const lines = (there ?? '').split('\n');
    const line = text.split('\n').findIndex((one, index) => one !== lines[index]) + 1;
    return [`${path}:${Math.max(line, 1)}: is ${there === undefined ? 'missing' : 'out of date'}; run "npm run docs"`];
  });
}

/** What the standards ask for, from the table beside this file. */
export function readRequirements(): Requirement[] {
  return readTable('requirements.tsv').map(([id = '', level = '', text = '', section = '']) => ({
    id,
    level,
    text,
    section,
  }));
}

/** By requirement, the test files whose names (or tables of cases) carry its id. */
export function provenBy(requirements: readonly Requirement[], sources: readonly Source[]): Map<string, string[]> {
  const proven = new Map(requirements.map(({ id }) => [id, [] as string[]]));
  // A test's name, or a row of a table of cases that becomes one. Comments prove nothing.
  const ids = /(?<![\w-])(?:ID|X509|JWT|WIT|WE|WA|TB|FED|BE|BR|ST|NEG)-\d+A?(?![\w-])/g;
  for (const { path, code } of sources) {
    if (!/^test\/(?!repo\/|support\/)/.test(path)) continue;
    for (const id of [...[...findAll(code, ids)].map(({ match }) => match[0]), ...negativeRows(code)]) {
      const files = proven.get(id);
      if (files !== undefined && !files.includes(path)) files.push(path);
    }
  }
  return proven;
}

/**
 * Bad inputs are named `negative row 7`, `negative rows 25 to 32` or `negative rows 6, 10 and 16`, or stand in tables
 * that begin with the number and an id, and are named from it.
 */
function negativeRows(code: string): string[] {
  const named = [...findAll(code, /\bnegative rows? ((?:\d+|, | and | to )+)/g)].flatMap(({ match }) => {
    const [from, to] = /^(\d+) to (\d+)/.exec(match[1]!)?.slice(1).map(Number) ?? [];
    if (from !== undefined && to !== undefined)
      return Array.from({ length: to - from + 1 }, (_, index) => from + index);
    return (match[1]!.match(/\d+/g) ?? []).map(Number);
  });
  const inTables = code.includes('negative row ${row}')
    ? [...findAll(code, /\[\s*(\d+),\s*'[A-Z0-9]+-\d/g)].map(({ match }) => Number(match[1]))
    : [];
  return [...named, ...inTables].map((row) => `NEG-${row}`);
}

function conformancePage(requirements: readonly Requirement[], sources: readonly Source[]): string {
  const proven = provenBy(requirements, sources);
  const files = (id: string): string[] => proven.get(id) ?? [];
  const tested = requirements.filter(({ id }) => files(id).length > 0);
  const untested = requirements.filter(({ id }) => files(id).length === 0);
  const sections = [...new Set(requirements.map(({ section }) => section))];
  const count = (section: string): string => {
    const own = requirements.filter((one) => one.section === section);
    return `| ${section} | ${own.length} | ${own.filter(({ id }) => files(id).length > 0).length} |`;
  };
  return [
    '# Conformance to the SPIFFE standards',
    '',
    'Every requirement of the standards has an id, and a test that proves one carries the id in its name. A requirement is met',
    'when its tests pass: `npm test` runs all of them but those under `test/peers`, which `npm run test:peers` runs. `NEG-n` is',
    'a bad input and what must become of it.',
    '',
    '| document | requirements | with a test |',
    '|---|---|---|',
    ...sections.map(count),
    '',
    ...sections.flatMap((section) => {
      const own = tested.filter((one) => one.section === section);
      if (own.length === 0) return [];
      return [
        `## ${section}`,
        '',
        '| id | level | requirement | test |',
        '|---|---|---|---|',
        ...own.map(({ id, level, text }) => {
          const links = files(id).map(
            (path) => `[${path.replace(/^test\//, '').replace(/\.test\.ts$/, '')}](../${path})`,
          );
          return `| ${id} | ${level} | ${cell(text)} | ${links.join(', ')} |`;
        }),
        '',
      ];
    }),
    '## Without a test yet',
    '',
    'Requirements on what is not built yet, on clients or operators alone, or simply without a test.',
    '',
    '| id | level | requirement |',
    '|---|---|---|',
    ...untested.map(({ id, level, text }) => `| ${id} | ${level} | ${cell(text)} |`),
    '',
  ].join('\n');
}

function errorsPage(): string {
  const statusNames = new Map<number, string>(Object.entries(Status).map(([name, code]) => [code, name]));
  return [
    '# Errors',
    '',
    'Every refusal has a code that stays the same from version to version. Commands print it with `--output json` and end with',
    'the exit code: 1, the work failed; 2, the command or its configuration was wrong. Over gRPC it becomes the status below,',
    'unless the contract of a method names another one. The message says what was wrong, with the value quoted; what only the',
    'operator may know stands in the log of the program that refused.',
    '',
    '| code | gRPC status | exit | meaning |',
    '|---|---|---|---|',
    ...Object.entries(faults).map(
      ([code, { status, exit, means }]) => `| \`${code}\` | ${statusNames.get(status)} | ${exit} | ${cell(means)} |`,
    ),
    '',
  ].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function made(page: string, from: string): string {
  return `<!-- Made from ${from} by "npm run docs"; changes here are lost. -->\n\n${page}`;
}

if (import.meta.main) {
  const sources = readSources();
  if (process.argv.includes('--check')) {
    const stale = staleDocs(sources);
    for (const sentence of stale) console.error(sentence);
    process.exitCode = stale.length === 0 ? 0 : 1;
  } else {
    mkdirSync(join(root, 'docs'), { recursive: true });
    for (const [path, text] of pages(sources)) {
      writeFileSync(join(root, path), text);
      console.log(`docs: ${path}`);
    }
  }
}
