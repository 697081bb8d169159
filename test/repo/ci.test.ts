/** .ci/run with a stand-in for npm that says what real runs say. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { root } from '../../tools/run.ts';

const closing = (pass: number, fail = 0, skipped = 0): string =>
  [
    `tests ${pass + fail + skipped}`,
    'suites 0',
    `pass ${pass}`,
    `fail ${fail}`,
    'cancelled 0',
    `skipped ${skipped}`,
    'todo 0',
    'duration_ms 5',
  ]
    .map((line) => `echo 'ℹ ${line}'`)
    .join('; ');

interface Parts {
  install?: string;
  check?: string;
  test?: string;
  peers?: string;
}

function ci(t: TestContext, { install = ':', check = ':', test: tests = closing(10), peers = closing(5) }: Parts) {
  const place = mkdtempSync(join(tmpdir(), 'mutual-ci-'));
  t.after(() => rmSync(place, { recursive: true }));
  for (const directory of ['.ci', 'bin']) mkdirSync(join(place, directory));
  copyFileSync(join(root, '.ci', 'run'), join(place, '.ci', 'run'));
  const npm = `#!/bin/sh\ncase "$*" in\nci) ${install} ;;\n'run check') ${check} ;;\ntest) ${tests} ;;\n'run test:peers') ${peers} ;;\n*) exit 99 ;;\nesac\n`;
  writeFileSync(join(place, 'bin', 'npm'), npm, { mode: 0o755 });
  const { status, stdout } = spawnSync('bash', [join(place, '.ci', 'run')], {
    encoding: 'utf8',
    env: { PATH: `${join(place, 'bin')}:${process.env.PATH}` },
  });
  return { status, last: stdout.trimEnd().split('\n').at(-1), stdout };
}

const cases: [string, Parts, number, string][] = [
  ['all is well', {}, 0, '15 passed, 0 failed'],
  ['a test failed', { test: `${closing(9, 1)}; exit 1` }, 1, '14 passed, 1 failed'],
  ['the older figures of the runner', { peers: closing(5).replaceAll('ℹ', '#') }, 0, '15 passed, 0 failed'],
  ['a peer was missing and its tests skipped', { peers: closing(3, 0, 2) }, 1, '13 passed, 2 failed'],
  ['the check failed and the tests still ran', { check: 'echo "FAILED types"; exit 1' }, 1, '15 passed, 1 failed'],
  ['the peers did not start', { peers: 'echo "no go"; exit 3' }, 1, '10 passed, 1 failed'],
  ['the install failed, so nothing else ran', { install: 'exit 1' }, 1, '0 passed, 1 failed'],
  ['nothing was tested', { test: ':', peers: ':' }, 1, '0 passed, 0 failed'],
];
for (const [what, parts, status, last] of cases) {
  test(`closes with one line when ${what}`, (t) => {
    const ran = ci(t, parts);
    assert.deepEqual([ran.status, ran.last], [status, last], ran.stdout);
  });
}

const failing = (count: number, lines: number): string =>
  [
    "echo '✖ failing tests:'",
    ...Array.from({ length: count }, (_, n) => [
      `echo; echo 'test at test/${n}.test.ts:1:1'; echo '✖ failed ${n} (1ms)'`,
      `seq ${lines} | sed 's/^/  line /'`,
    ]),
  ]
    .flat()
    .join('; ');

test('ends with what failed: file, name and error of each test, of every part', (t) => {
  const crash = "echo 'why it crashed'; echo '✖ test/a.test.ts (1ms)'";
  const crashed = "echo; echo 'test at test/a.test.ts:1:1'; echo '✖ test/a.test.ts (1ms)'; echo '  test failed'";
  const tests = `${crash}; echo '✖ failed 0 (1ms)'; ${closing(9, 2)}; ${failing(1, 3)}; ${crashed}; exit 1`;
  const peers = `echo '﹣ had no peer (1ms) # SKIP'; ${closing(5, 0, 1)}`;
  const { stdout } = ci(t, { test: tests, peers });
  const end = `
=== failed with code 1: npm test
test at test/0.test.ts:1:1
✖ failed 0 (1ms)
  line 1
  line 2
  line 3
test at test/a.test.ts:1:1
✖ test/a.test.ts (1ms)
  | why it crashed
  test failed

=== failed with code 0: npm run test:peers
skipped or to do: ﹣ had no peer (1ms) # SKIP
`;
  assert.ok(stdout.includes(end), stdout);
});

test('a part that ended before its tests did says what it had come to', (t) => {
  const { stdout } = ci(t, { test: "echo '✖ failed early (1ms)'; seq 100 140; echo 'node has not ended'; exit 137" });
  const end = stdout.slice(stdout.indexOf('\n=== failed with'));
  assert.match(
    end,
    /^\n=== failed with code 137: npm test\n✖ failed early \(1ms\)\n(\d{3}\n){14}node has not ended\n\n5 passed/,
  );
});

for (const [count, lines] of [
  [2, 500],
  [50, 20],
  [500, 20],
]) {
  test(`what failed is short: ${count} tests of ${lines} lines each in every part`, (t) => {
    const part = `${closing(0, count)}; ${failing(count as number, lines as number)}; exit 1`;
    const { stdout, last } = ci(t, { check: 'seq 100; exit 1', test: part, peers: part });
    const end = stdout.slice(stdout.indexOf('\n=== failed with'));
    assert.ok(end.split('\n').length <= 205, end);
    assert.match(end, /✖ failed 1 /);
    assert.equal(last, `0 passed, ${2 * (count as number) + 1} failed`);
  });
}
