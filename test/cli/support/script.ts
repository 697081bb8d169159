/**
 * Scripts of the command line, as text: a line `$ mutual ...`, then what it must print and how it must end.
 *
 *   # a claim, the name of the test          (first line)
 *   # option NAME=VALUE                      an option of the server, by its flag
 *   $ mutual entry create --spiffe-id ...    a command; '...' and "..." quote
 *   < text                                   a line of its standard input
 *   a line                                   standard output, compared whole
 *   ! a line                                 standard error, compared whole
 *   = 1                                      the exit code; 0 when there is no such line
 *
 * In expected lines `{NAME}` stands for any text without blanks, the same wherever that name is used again, in later
 * commands too; `{...}` for any text at all.
 */
import { deepEqual, equal, match } from 'node:assert/strict';

export interface Ran {
  readonly out: string;
  readonly err: string;
  readonly exit: number;
}

interface Step {
  readonly line: number;
  readonly words: readonly string[];
  readonly stdin: string;
  readonly out: readonly string[];
  readonly err: readonly string[];
  readonly exit: number;
}

/** The claim a script opens with. */
export function claimOf(script: string): string {
  const first = script.split('\n', 1)[0]!;
  match(first, /^# \S/, 'a script begins with its claim');
  return first.slice(2);
}

/** Options of its server that a script asks for. */
export function optionsOf(script: string): Record<string, string> {
  return Object.fromEntries(
    [...script.matchAll(/^# option ([a-z0-9-]+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  );
}

/** Runs a script. `run` takes the words after `mutual` and the standard input. Names may be given values before. */
export async function runScript(
  script: string,
  run: (words: readonly string[], stdin: string) => Promise<Ran>,
  names: Map<string, string>,
): Promise<void> {
  for (const step of stepsOf(script)) {
    const words = step.words.map((word) => filled(word, names));
    const ran = await run(words, filled(step.stdin, names));
    const at = `line ${step.line}: ${words.join(' ')}`;
    compare(step.out, ran.out, names, `${at}: standard output\n${ran.err}`);
    compare(step.err, ran.err, names, `${at}: standard error`);
    equal(ran.exit, step.exit, `${at}: exit code\n${ran.out}${ran.err}`);
  }
}

function stepsOf(script: string): Step[] {
  const steps: { line: number; words: string[]; stdin: string; out: string[]; err: string[]; exit: number }[] = [];
  for (const [index, line] of script.trimEnd().split('\n').entries()) {
    const step = steps.at(-1);
    if (line.startsWith('$ ')) {
      const [program, ...words] = wordsOf(line.slice(2));
      equal(program, 'mutual', `line ${index + 1}`);
      steps.push({ line: index + 1, words, stdin: '', out: [], err: [], exit: 0 });
    } else if (line.startsWith('#') || step === undefined) {
      equal(line === '' || line.startsWith('#'), true, `line ${index + 1} belongs to no command: ${line}`);
    } else if (line.startsWith('< ')) step.stdin += `${line.slice(2)}\n`;
    else if (line.startsWith('! ')) step.err.push(line.slice(2));
    else if (/^= \d+$/.test(line)) step.exit = Number(line.slice(2));
    else step.out.push(line);
  }
  // The blank line before the next command or comment belongs to nobody.
  for (const step of steps) while (step.out.at(-1) === '') step.out.pop();
  return steps;
}

function wordsOf(line: string): string[] {
  return [...line.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)].map(([word]) =>
    word.replace(/'([^']*)'|"([^"]*)"/g, '$1$2'),
  );
}

const placeholder = /\{(\.\.\.|[A-Z][A-Z0-9_]*)\}/g;

function filled(text: string, names: Map<string, string>): string {
  return text.replace(placeholder, (whole, name: string) => names.get(name) ?? whole);
}

function compare(expected: readonly string[], text: string, names: Map<string, string>, what: string): void {
  const lines = text === '' ? [] : text.replace(/\n+$/, '').split('\n');
  const shown = lines.map((line, index) => (fits(expected[index], line, names) ? expected[index]! : line));
  deepEqual(shown, expected, what);
}

/** Whether a line is as expected; then its new names are kept. */
function fits(expected: string | undefined, line: string, names: Map<string, string>): boolean {
  if (expected === undefined) return false;
  const fresh: string[] = [];
  const pattern = filled(expected, names)
    .split(placeholder)
    .map((part, index) => {
      if (index % 2 === 0) return part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
      if (part === '...') return '.*';
      fresh.push(part);
      return '(\\S+?)';
    })
    .join('');
  const found = new RegExp(`^${pattern}$`).exec(line);
  if (found === null) return false;
  for (const [index, name] of fresh.entries()) names.set(name, found[index + 1]!);
  return true;
}
