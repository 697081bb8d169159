/** The bundled programs are the programs: what only breaks in a bundle (workers, files beside the code) is used once here. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { root } from '../../tools/run.ts';
import { freePort } from '../peers/support/place.ts';
import { folderOf, killAfter } from '../support/programs.ts';

const built = join('node_modules', '.cache', `build-${process.pid}`);
const program = join(root, built, 'mutual.cjs');

before(() => {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'tools', 'build.ts'), built], {
    cwd: root,
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
});
after(() => rmSync(join(root, built), { recursive: true, force: true }));

test('the build has the command, the worker of the store and the contracts, and nothing half made', () => {
  for (const name of [
    'mutual.cjs',
    'mutual-server.cjs',
    'mutual-agent.cjs',
    'begin-thread.cjs',
    'sqlite-worker.cjs',
    'signing-worker.cjs',
    join('proto', 'workload.proto'),
    join('proto', 'descriptor.json'),
  ]) {
    assert.ok(existsSync(join(root, built, name)), name);
  }
  assert.equal(existsSync(join(root, `${built}.new`)), false);
  assert.equal(existsSync(join(root, built, 'proto', 'gen')), false);
});

test('the built command answers, and refuses as the sources do', () => {
  const run = (...args: string[]) => spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  assert.match(run('version').stdout, /^mutual \d/);
  assert.match(run('config', 'explain', 'server').stdout, /trustDomain/);
  const refused = run('server', 'run', '--trust-domain', 'Bad/x');
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /trust domain "Bad\/x" is not valid/);
});

test('the built server and agent give an SVID, and end cleanly', async (t) => {
  const place = await folderOf(t, 'mutual-built-');
  const child = spawn(process.execPath, [program, 'up', '--data-dir', place, '--listen', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  killAfter(t, child);
  let text = '';
  const ended = once(child, 'close');
  const up = new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (part) => {
        text += String(part);
        if (text.includes('Ctrl-C')) resolve();
      });
    }
    child.on('close', () => reject(new Error(`ended early: ${text}`)));
  });
  await up;
  assert.match(text, /spiffe:\/\/example\.org\/user\//);
  child.kill('SIGINT');
  assert.deepEqual(await ended, [0, null], text);
});

test('what few starts need lies beside the programs and is read when it is asked for', async (t) => {
  const place = await folderOf(t, 'mutual-built-');
  const config = join(place, 'server.yaml');
  const start = (lines: string) => {
    writeFileSync(config, `trustDomain: example.org\nlisten: 127.0.0.1:0\n${lines}`);
    const args = ['server', 'run', '--config', config, '--data-dir', join(place, 'data')];
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    killAfter(t, child);
    return child;
  };
  const metrics = `127.0.0.1:${await freePort()}`;
  const measured = start(`metrics:\n  listen: ${metrics}\n`);
  await new Promise<void>((resolve, reject) => {
    let text = '';
    for (const stream of [measured.stdout, measured.stderr])
      stream.on('data', (part) => {
        text += String(part);
        if (text.includes('server ready')) resolve();
      });
    measured.once('close', () => reject(new Error(`ended early: ${text}`)));
  });
  const response = await fetch(`http://${metrics}/metrics`);
  assert.match(await response.text(), /^# HELP mutual_/m);
  measured.kill('SIGTERM');
  await once(measured, 'close');

  const refused = start('database: postgres://nobody@127.0.0.1:1/none\n');
  let said = '';
  for (const stream of [refused.stdout, refused.stderr]) stream.on('data', (part) => (said += String(part)));
  await once(refused, 'close');
  assert.match(said, /the database at 127\.0\.0\.1:1\/none cannot be reached/);
});

test('the built programs run from files of their own, and V8 takes the code that their starts have left', async (t) => {
  const place = await folderOf(t, 'mutual-built-');
  cpSync(join(root, 'bin'), join(place, 'bin'), { recursive: true });
  symlinkSync(join(root, built), join(place, 'dist'));
  const child = spawn(
    process.execPath,
    [
      join(place, 'bin', 'mutual.js'),
      ...[
        'server',
        'run',
        '--trust-domain',
        'example.org',
        '--data-dir',
        join(place, 'data'),
        '--listen',
        '127.0.0.1:0',
      ],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, killSignal: 'SIGKILL' },
  );
  killAfter(t, child);
  let text = '';
  const ended = once(child, 'close');
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (text += String(part)));
  const file = join(place, '.cache', 'mutual', `mutual-server-${process.version}-${process.arch}.code`);
  while (!existsSync(file)) {
    assert.deepEqual([child.exitCode, child.signalCode], [null, null], text);
    await pause(20);
  }
  const asked = `const { readFileSync } = require('node:fs');
    const text = readFileSync(process.argv[1], 'latin1');
    const cachedData = readFileSync(process.argv[2]).subarray(32);
    const script = new (require('node:vm').Script)(text, { cachedData });
    console.log(script.cachedDataRejected);`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', asked, join(root, built, 'mutual-server.cjs'), file], {
    encoding: 'utf8',
  });
  assert.equal(stdout, 'false\n', stderr);
  child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null], text);
});
