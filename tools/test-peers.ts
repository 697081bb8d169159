/**
 * npm run test:peers [-- PART...]: installs the peers of tier 1 and runs the tests that need them, those whose path holds
 * a PART when given. A peer that cannot be had fails the run: what was not tried has proved nothing.
 */
import { globSync } from 'node:fs';
import { installPeers } from './peers-install.ts';
import { root, run } from './run.ts';

/** Rotations are waited for in real time, up to two minutes. Milliseconds. */
const longestTest = 300_000;
/** Of one file, and of them all. Minutes. */
const longestFile = 12;
const longestRun = 45;
/** The tests wait more than they work, so three files at once keep two cores busy without starving anyone. */
const filesAtOnce = 3;

const words = process.argv.slice(2);
const flags = words.filter((word) => word.startsWith('--'));
const parts = words.filter((word) => !word.startsWith('--'));
const files = globSync('test/peers/**/*.test.ts', { cwd: root })
  .filter((path) => parts.length === 0 || parts.some((part) => path.includes(part)))
  .sort();

const missing = await installPeers();
if (missing.length > 0) {
  console.error(`test:peers: not run: ${missing.join(', ')} could not be installed (npm run peers:install)`);
  process.exitCode = 1;
} else if (files.length === 0) {
  console.error(`test:peers: no test in test/peers is called ${parts.join(' or ')}`);
  process.exitCode = 1;
} else {
  const { code } = await run(
    'node',
    [
      '--test',
      `--test-concurrency=${filesAtOnce}`,
      `--test-timeout=${longestTest}`,
      '--import=./test/support/limit.ts',
      ...(flags.some((flag) => flag.startsWith('--test-reporter')) ? [] : ['--test-reporter=spec']),
      ...flags,
      ...files,
    ],
    { limit: longestRun, env: { TEST_FILE_LIMIT: String(longestFile) } },
  );
  process.exitCode = code;
}
