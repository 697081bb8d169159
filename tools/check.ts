/**
 * npm run check: whether the tree is fit to be committed. Types, lint and format, the project's own laws, and documents in
 * step with what they are made from. All of it runs even when a part fails, so that one run says everything; then a report
 * on what has grown long, which is no failure.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { staleDocs } from './docs.ts';
import { laws } from './laws/all.ts';
import { isProgram, printOffence, readSources } from './laws/source.ts';
import { root, run } from './run.ts';

/** What is wrong, or the empty text. */
type Step = readonly [name: string, check: () => Promise<string>];

/** Lines of a file that a reader takes in at one sitting. */
const longFile = 300;

const sources = readSources();
const steps: readonly Step[] = [
  ['wire types', () => command('node', ['tools/proto-types.ts'])],
  ['types', () => command('tsc', ['-p', '.'])],
  ['lint and format', () => command('biome', ['ci', '--colors=off', '--diagnostic-level=error', '.'])],
  ...laws.map((law): Step => [`law: ${law.name}`, async () => law.check(sources).map(printOffence).join('\n')]),
  ['documents', async () => staleDocs(sources).join('\n')],
];

async function command(name: string, args: readonly string[]): Promise<string> {
  if (name === 'node' && !existsSync(join(root, args[0]!))) return `${args[0]} is missing`;
  const { code, output } = await run(name, args, { capture: true });
  return code === 0 ? '' : output.trim() || `${name} ended with code ${code}`;
}

const failures: string[] = [];
for (const [name, check] of steps) {
  const start = performance.now();
  const wrong = await check();
  const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(5);
  console.log(`${wrong === '' ? 'ok    ' : 'FAILED'} ${seconds} s  ${name}`);
  if (wrong !== '') failures.push(`--- ${name}\n${wrong}`);
}

const long = sources
  .filter((source) => isProgram(source))
  .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
  .filter(({ lines }) => lines > longFile)
  .sort((a, b) => b.lines - a.lines);
if (long.length > 0) {
  console.log(`\nLonger than ${longFile} lines, would a reader find one room or three?`);
  for (const { path, lines } of long) console.log(`  ${lines} ${path}`);
}

if (failures.length > 0) console.error(`\n${failures.join('\n\n')}`);
console.log(`\ncheck: ${steps.length - failures.length} passed, ${failures.length} failed`);
process.exitCode = failures.length === 0 ? 0 : 1;
