/** Where a Unix socket may be bound, and what happens to one that is there already. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import type { Fault } from '../../../src/errors.ts';
import { type Serving, serveUnix } from '../../../src/rpc/serve.ts';

const place = (): string => join(mkdtempSync(join(tmpdir(), 'mutual-')), 's.sock');
const servings = new Set<Serving>();
after(() => Promise.all([...servings].map((serving) => serving.close(0))));
async function serve(path: string, mode = 0o600): Promise<Serving> {
  const serving = await serveUnix({ path, mode, services: [] });
  servings.add(serving);
  return serving;
}

async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  const answer = await Promise.race([
    once(socket, 'connect').then(() => true),
    once(socket, 'error').then(() => false),
  ]).catch(() => false);
  socket.destroy();
  return answer;
}

/** A socket whose program was killed. */
async function leftBehind(path: string): Promise<void> {
  const child = spawn(
    process.execPath,
    ['-e', `require('node:net').createServer().listen(process.argv[1], () => console.log(1))`, path],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok(lstatSync(path).isSocket());
}

test('a socket has the mode that was asked for, whatever the umask', async () => {
  for (const mode of [0o777, 0o770, 0o600]) {
    const path = place();
    const serving = await serve(path, mode);
    assert.equal(statSync(path).mode & 0o777, mode);
    assert.deepEqual(readdirSync(dirname(path)), ['s.sock']);
    await serving.close(0);
    assert.equal(existsSync(path), false);
  }
});

test('directories that are missing are made', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 'a', 'b', 's');
  const serving = await serve(path);
  assert.equal(statSync(dirname(path)).mode & 0o777, 0o755);
  await serving.close(0);
});

test('a socket that a killed program left behind is replaced', async () => {
  const path = place();
  await leftBehind(path);
  const serving = await serve(path);
  assert.equal(await answers(path), true);
  await serving.close(0);
});

test('a socket on which somebody answers is left alone, and they are not disturbed', async () => {
  const path = place();
  const first = await serve(path);
  await assert.rejects(
    serve(path),
    (fault: Fault) => fault.code === 'state/refused' && /another program serves/.test(fault.message),
  );
  assert.equal(await answers(path), true);
  await first.close(0);
});

test('what is no socket is never replaced', async () => {
  const path = place();
  writeFileSync(path, 'precious');
  await assert.rejects(
    serve(path),
    (fault: Fault) => fault.code === 'config/invalid' && /exists and is not a socket/.test(fault.message),
  );
  assert.equal(statSync(path).size, 8);
});

test('closing does not remove the socket that a successor has put in the place', async () => {
  const path = place();
  const first = await serve(path);
  const second = createServer();
  second.listen(`${path}2`);
  await once(second, 'listening');
  const { renameSync } = await import('node:fs');
  renameSync(`${path}2`, path);
  await first.close(0);
  assert.equal(await answers(path), true);
  second.close();
});

test('a path of 107 bytes is served, one of 108 is refused by a sentence of its own', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'mutual-'));
  const path = join(directory, 'x'.repeat(107 - directory.length - 1));
  const serving = await serve(path);
  assert.equal(await answers(path), true);
  await serving.close(0);
  await assert.rejects(
    serve(`${path}x`),
    (fault: Fault) => fault.code === 'config/invalid' && /is 108 bytes long: at most 107 fit/.test(fault.message),
  );
  await assert.rejects(serve(`${path.slice(0, -1)}ü`), /is 108 bytes long/);
});

test('a directory that cannot be written to is a sentence, not a stack', async () => {
  await assert.rejects(
    serve('/proc/nowhere/s'),
    (fault: Fault) =>
      fault.code === 'config/invalid' && /^cannot listen on "\/proc\/nowhere\/s": ENOENT$/.test(fault.message),
  );
});
