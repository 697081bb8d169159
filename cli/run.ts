/** The whole command line as a function: words in, exit code out. */

import { nearest } from '../src/config/nearest.ts';
import { Fault, quote } from '../src/errors.ts';
import { commands, groupOf, type Listed, resolve } from './commands.ts';
import { printFailure } from './failure.ts';
import type { Ports } from './ports.ts';

/** Runs a command. Gives 0, 1 when it failed, 2 when it was called wrongly, 130 when a signal cut it short; never rejects. */
export async function run(words: readonly string[], ports: Ports): Promise<number> {
  try {
    const first = words[0];
    if (first === '--version' || first === '-version' || first === '-V')
      return await run(['version', ...words.slice(1)], ports);
    if (first === 'help') return await run([...words.slice(1), '--help'], ports);
    const found = resolve(words);
    if (found.kind === 'group') return group(found.path, found.rest, ports);
    if (!found.rest.some(isHelp)) found.listed.begin?.();
    const [command, { parse }] = await Promise.all([found.listed.load(), import('./parse.ts')]);
    const parsed = parse(command, found.listed.path, found.rest);
    if ('help' in parsed) {
      ports.out(parsed.help);
      return 0;
    }
    return (await command.run(parsed.values as never, ports, found.called)) ?? 0;
  } catch (error) {
    // Ended by a signal: whoever sent it needs no explanation. The shells' convention for SIGINT.
    if (ports.stop.aborted) return 130;
    return printFailure(error, ports);
  }
}

const isHelp = (word: string): boolean => word === '-h' || /^--?help$/.test(word);

function group(path: string, rest: readonly string[], ports: Ports): number {
  const [word] = rest;
  const prefix = path === '' ? 'mutual' : `mutual ${path}`;
  if (word === undefined || isHelp(word)) {
    const help = groupHelp(path, ports);
    if (word !== undefined) ports.out(help);
    else ports.err(help);
    return word === undefined ? 2 : 0;
  }
  if (word.startsWith('-')) {
    throw new Fault('usage/invalid', `unknown flag ${quote(word)} of ${quote(prefix)}`, {
      hint: `Flags follow the whole command; see "${prefix} --help".`,
    });
  }
  const below = [
    ...new Set(groupOf(path).map((each) => each.path.slice(path === '' ? 0 : path.length + 1).split(' ')[0]!)),
  ];
  const near = nearest(word, below);
  throw new Fault('usage/invalid', `unknown command ${quote(`${prefix} ${word}`)}`, {
    hint: `${near === undefined ? '' : `Did you mean "${prefix} ${near}"? `}See "${prefix} --help".`,
  });
}

/** The commands below some words, one a line. */
function groupHelp(path: string, ports: Ports): string {
  const shown: readonly Listed[] = groupOf(path);
  const width = Math.max(...commands.map((each) => each.path.length));
  const about =
    path === ''
      ? 'Workload identity: a server, its agents, and SPIFFE identities for processes.\n\nStart here: mutual up\n'
      : '';
  return `Usage: mutual ${path === '' ? '' : `${path} `}COMMAND [flags]\n\n${about}${about === '' ? '' : '\n'}${ports.style('bold', 'Commands:')}\n${shown
    .map((each) => `  ${each.path.padEnd(width)}  ${each.summary}\n`)
    .join('')}\nSee "mutual COMMAND --help" for its flags.\n`;
}
