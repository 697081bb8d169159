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
