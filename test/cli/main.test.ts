/** The process edge: what only a process shows. */
import { equal, match, ok } from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { version } from '../../src/version.ts';

const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

function mutual(...words: string[]): { out: string; err: string; exit: number | null } {
  const { stdout, stderr, status } = spawnSync(process.execPath, [main, ...words], { encoding: 'utf8' });
  return { out: stdout, err: stderr, exit: status };
}

suite('the process', () => {
  test('prints its version and nothing else', () => {
    const ran = mutual('version');
    equal(ran.out, `mutual ${version}\n`);
    equal(ran.err, '');
    equal(ran.exit, 0);
    equal(mutual('--version').out, ran.out);
  });

  test('ST-2 names what this build can do, and which state of the incubating standards it has', () => {
    const { features } = JSON.parse(mutual('version', '--features', '--output', 'json').out);
    equal(features.node, process.versions.node);
    equal(typeof features.tls_x25519mlkem768, 'boolean');
    match(features.spiffe_broker_api, /^spiffe\/spiffe [0-9a-f]{7} \(\d{4}-\d\d-\d\d\)$/);
  });

  test('ends with 2 for a wrong call and 1 for a failure', () => {
    equal(mutual('entry', 'lst').exit, 2);
    equal(mutual('entry', 'list', '--admin-socket', '/nowhere/x.sock').exit, 1);
  });

  test('prints no colours into a pipe', () => {
    equal(mutual('--help').out.includes('\u001b'), false);
  });

  test('a reader that leaves early is no failure', async () => {
    const child = spawn(process.execPath, [main, 'config', 'explain'], { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.destroy();
    equal(await new Promise((resolve) => child.on('exit', resolve)), 0);
  });

  test('completes commands, flags and the words a flag takes', () => {
    const offered = (...words: string[]): string => mutual('complete', '--', ...words).out;
    match(offered('ent'), /^entry\t/m);
    match(offered('entry', 'c'), /^create\tRegister/m);
    match(offered('entry', 'create', '--sp'), /^--spiffe-id\t/m);
    match(offered('bundle', 'show', '--format', ''), /^spiffe\t/m);
    match(offered('server', 'run', '--trust'), /^--trust-domain\t/m);
  });

  for (const shell of ['bash', 'zsh', 'fish', 'powershell']) {
    test(`prints a completion script for ${shell}`, () => {
      const ran = mutual('completion', shell);
      equal(ran.exit, 0);
      ok(ran.out.includes('mutual complete'), ran.out.slice(0, 200));
    });
  }
});
