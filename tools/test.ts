/**
 * npm test [-- PATH... | --FLAG...]: the tests that need nothing but this checkout: units, contract suites, flows, laws.
 * Those that need other programs are in test/peers (npm run test:peers). A path is a file, a folder, or a part of a name;
 * flags go to Node's test runner (--test-name-pattern=..., --test-reporter=...).
 */
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { root, run } from './run.ts';

/** Longer than any test takes on a slow machine; what hangs should say so and end. Milliseconds. */
const longestTest = 240_000;
/** Of one file, and of them all, on a slow machine. Minutes. */
const longestFile = 8;
const longestRun = 35;

const words = process.argv.slice(2);
const flags = words.filter((word) => word.startsWith('--'));
const wanted = words.filter((word) => !word.startsWith('--'));

const all = globSync('test/**/*.test.ts', { cwd: root })
  .filter((path) => !path.startsWith(join('test', 'peers')))
  .sort();
const files = wanted.length === 0 ? all : all.filter((path) => wanted.some((word) => isMeant(path, word)));

/** Whether a word names the file: by a path from here or from the root, or by a part of it. */
function isMeant(path: string, word: string): boolean {
  const below = relative(root, resolve(word));
  return path === below || path.startsWith(`${below}/`) || path.includes(word);
}

if (files.length === 0) {
  console.error(
    `test: no test file is meant by ${wanted.map((word) => JSON.stringify(word)).join(', ') || 'test/**/*.test.ts'}`,
  );
  process.exitCode = 1;
} else {
  const settings = Object.keys(process.env).filter((name) => /^(MUTUAL_|SPIFFE_)/.test(name));
  const { code } = await run(
    'node',
    [
      '--test',
      `--test-concurrency=${availableParallelism()}`,
      `--test-timeout=${longestTest}`,
      '--import=./test/support/limit.ts',
      ...(flags.some((flag) => flag.startsWith('--test-reporter')) ? [] : ['--test-reporter=spec']),
      ...flags,
      ...files,
    ],
    {
      limit: longestRun,
      env: {
        TEST_FILE_LIMIT: String(longestFile),
        // Each file runs in a process of its own and loads much the same modules.
        NODE_COMPILE_CACHE: join(root, 'node_modules', '.cache', 'test'),
        // The settings of whoever runs the tests are not the tests'.
        ...Object.fromEntries(settings.map((name) => [name, undefined])),
      },
    },
  );
  process.exitCode = code;
}
