/** bin/mutual.js in a checkout of its own, on this Node and, by a stand-in for its version, on one that is too old. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { root } from '../../tools/run.ts';

/** Loaded before the launcher: this process says that it is Node 20, unless it was started by a launcher. */
const pretendOld = `if (process.env.MUTUAL_LAUNCHED === undefined) {
  Object.defineProperty(process.versions, 'node', { value: '20.20.2' });
  Object.defineProperty(process, 'version', { value: 'v20.20.2' });
}`;

/** The sources are modules to import, a build is one to require: each says where it lies. */
const program = (directory: string): string => `
const directory = ${directory};
if (process.argv[2] === 'wait') {
  setInterval(() => {}, 1000);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGUSR2']) process.on(signal, () => { console.log('got', signal); process.exit(9); });
}
console.log('args', JSON.stringify(process.argv.slice(2)), process.env.MUTUAL_LAUNCHED, directory);
if (process.argv[2] === 'kill') process.kill(process.pid, 'SIGKILL');
if (process.argv[2] === 'code') process.exitCode = 3;
`;

function checkout(t: TestContext): string {
  const place = mkdtempSync(join(tmpdir(), 'mutual-launcher-'));
  t.after(() => rmSync(place, { recursive: true, force: true }));
  mkdirSync(join(place, 'cli'));
  cpSync(join(root, 'bin'), join(place, 'bin'), { recursive: true });
  writeFileSync(join(place, 'package.json'), '{"type":"module"}');
  writeFileSync(join(place, 'cli', 'main.ts'), program("import.meta.url.split('/').at(-2)"));
  writeFileSync(join(place, 'old.mjs'), pretendOld);
  return place;
}

function pinNode(place: string): void {
  mkdirSync(join(place, 'node_modules', 'node', 'bin'), { recursive: true });
  // A link to this Node would be this Node again: the launcher looks through links.
  writeFileSync(join(place, 'node_modules', 'node', 'bin', 'node'), `#!/bin/sh\nexec "${process.execPath}" "$@"\n`, {
    mode: 0o755,
  });
}

function launch(place: string, args: string[], old = false): ChildProcess & { text: () => string } {
  const child = spawn(
    process.execPath,
    [...(old ? ['--import', join(place, 'old.mjs')] : []), join(place, 'bin', 'mutual.js'), ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH },
    },
  );
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (part) => (text += String(part)));
  return Object.assign(child, { text: () => text });
}

async function finished(child: ReturnType<typeof launch>): Promise<{ code: number | null; text: string }> {
  const [code] = await once(child, 'close');
  return { code, text: child.text() };
}

/** Resolves with the first line of output. */
async function saying(child: ReturnType<typeof launch>): Promise<void> {
  while (!child.text().includes('\n')) await once(child.stdout!, 'data');
}

test('on a Node that is new enough it runs the sources, arguments and exit code unchanged', async (t) => {
  const place = checkout(t);
  const { code, text } = await finished(launch(place, ['code', 'a b', '--x']));
  assert.deepEqual([code, text], [3, 'args ["code","a b","--x"] undefined cli\n']);
});

test('a build that is not older than the sources is run instead of them', async (t) => {
  const place = checkout(t);
  mkdirSync(join(place, 'dist'));
  writeFileSync(join(place, 'dist', 'mutual.cjs'), program("__dirname.split('/').at(-1)"));
  const past = new Date(Date.now() - 60_000);
  utimesSync(join(place, 'cli', 'main.ts'), past, past);
  assert.match((await finished(launch(place, []))).text, / dist\n$/);
  mkdirSync(join(place, 'src', 'deep'), { recursive: true });
  writeFileSync(join(place, 'src', 'deep', 'x.ts'), '');
  const future = new Date(Date.now() + 60_000);
  utimesSync(join(place, 'src', 'deep', 'x.ts'), future, future);
  assert.match((await finished(launch(place, []))).text, / cli\n$/);
});

test('the two programs that run for long have files of their own in a build', async (t) => {
  const place = checkout(t);
  mkdirSync(join(place, 'dist'));
  const past = new Date(Date.now() - 60_000);
  utimesSync(join(place, 'cli', 'main.ts'), past, past);
  writeFileSync(join(place, 'dist', 'begin-thread.cjs'), '');
  const text = program("__filename.split('/').at(-1)");
  writeFileSync(join(place, 'dist', 'mutual.cjs'), text);
  for (const name of ['mutual-server', 'mutual-agent'])
    writeFileSync(join(place, 'dist', `${name}.cjs`), `(function (exports, require, module, __filename) {${text}})`);
  for (const [words, file] of [
    ['server run', 'mutual-server.cjs'],
    ['agent run --x', 'mutual-agent.cjs'],
    ['server migrate', 'mutual.cjs'],
    ['agent --x run', 'mutual.cjs'],
    ['up run', 'mutual.cjs'],
  ] as const)
    assert.match((await finished(launch(place, words.split(' ')))).text, new RegExp(` ${file}\n$`), words);
});

test("a built server's thread is begun first, unless help is asked for or its database is another", async (t) => {
  const place = checkout(t);
  mkdirSync(join(place, 'dist'));
  const past = new Date(Date.now() - 60_000);
  utimesSync(join(place, 'cli', 'main.ts'), past, past);
  writeFileSync(join(place, 'dist', 'begin-thread.cjs'), "console.log('begun')");
  for (const name of ['mutual-server', 'mutual-agent'])
    writeFileSync(join(place, 'dist', `${name}.cjs`), "(function () { console.log('program'); })");
  for (const [words, text] of [
    ['server run --data-dir x', 'begun\nprogram\n'],
    ['server run --database sqlite:/x', 'begun\nprogram\n'],
    ['server run --help', 'program\n'],
    ['server run --database postgres://x@y/z', 'program\n'],
    ['server run --database=postgresql://x@y/z', 'program\n'],
    ['agent run', 'program\n'],
  ] as const)
    assert.equal((await finished(launch(place, words.split(' ')))).text, text, words);
});

test('an old Node goes on with the pinned one, and says nothing of it', async (t) => {
  const place = checkout(t);
  pinNode(place);
  const { code, text } = await finished(launch(place, ['code', 'x'], true));
  assert.deepEqual([code, text], [3, 'args ["code","x"] undefined cli\n']);
});

test('an old Node without a pinned one is told in one sentence, exit 2', async (t) => {
  const place = checkout(t);
  const { code, text } = await finished(launch(place, [], true));
  assert.equal(code, 2);
  assert.match(
    text,
    /^mutual needs Node 24 or newer and this is v20\.20\.2: install Node 24, or run "npm install" in \S+, which brings its own, and start it again\.\n$/,
  );
});

test('a pinned Node that is the old one does not start itself for ever', async (t) => {
  const place = checkout(t);
  mkdirSync(join(place, 'node_modules', 'node', 'bin'), { recursive: true });
  symlinkSync(process.execPath, join(place, 'node_modules', 'node', 'bin', 'node'));
  assert.equal((await finished(launch(place, [], true))).code, 2);
});

for (const signal of ['SIGINT', 'SIGTERM', 'SIGUSR2'] as const) {
  test(`${signal} is passed on, and the program's exit code comes back`, async (t) => {
    const place = checkout(t);
    pinNode(place);
    const child = launch(place, ['wait'], true);
    await saying(child);
    child.kill(signal);
    const { code, text } = await finished(child);
    assert.equal(code, 9);
    assert.match(text, new RegExp(`got ${signal}`));
  });
}

test('a program that is killed is told as the shell tells it', async (t) => {
  const place = checkout(t);
  pinNode(place);
  assert.equal((await finished(launch(place, ['kill'], true))).code, 128 + 9);
});

test('a launcher that is killed leaves no program behind', async (t) => {
  const place = checkout(t);
  pinNode(place);
  const child = launch(place, ['wait'], true);
  await saying(child);
  child.kill('SIGKILL');
  // The pipes close when the last that holds them ends: the program itself.
  const { text } = await finished(child);
  assert.match(text, /got SIGTERM/);
});

test('compiled code is kept below the package, where only its owner writes', async (t) => {
  const place = checkout(t);
  pinNode(place);
  await finished(launch(place, []));
  assert.ok(existsSync(join(place, 'node_modules', '.cache', 'mutual')));
});

test('a checkout without a program says so', async (t) => {
  const place = checkout(t);
  rmSync(join(place, 'cli'), { recursive: true });
  const { code, text } = await finished(launch(place, []));
  assert.equal(code, 2);
  assert.match(
    text,
    /^mutual is not complete: neither .* nor .* is there; run "npm run build", or install it anew\.\n$/,
  );
});
