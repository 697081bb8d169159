/** The example of docs/broker.md, run as it stands there, in an empty folder. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { freePort } from '../peers/support/place.ts';

const page = readFileSync(new URL('../../docs/broker.md', import.meta.url), 'utf8');
const program = new URL('../../bin/mutual.js', import.meta.url).pathname;

test('the example of the page on brokers ends with the files of a workload that asked for nothing', async (t) => {
  const script = /```sh\n(# a server, an agent with a broker[\s\S]*?)```/.exec(page)?.[1];
  assert.ok(script);
  const directory = await mkdtemp(join(tmpdir(), 'mu-be-'));
  const command = join(directory, 'mutual');
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${program}" "$@"\n`, { mode: 0o755 });
  const log = openSync(join(directory, 'output'), 'w');
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn('bash', ['-c', script.replaceAll('8081', String(await freePort()))], {
    cwd: directory,
    // A file, not a pipe: whatever is left behind by a failure does not keep this process.
    stdio: ['ignore', log, log],
    detached: true,
    env: { ...env, PATH: `${directory}:${dirname(process.execPath)}:${env['PATH']}` },
  });
  closeSync(log);
  const killAll = (): void => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // Nobody of it is left.
    }
  };
  t.after(async () => {
    killAll();
    // What was killed may still be writing while it goes.
    await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });
  const late = setTimeout(killAll, 120_000);
  const [code] = await once(child, 'exit');
  clearTimeout(late);
  const output = readFileSync(join(directory, 'output'), 'utf8');
  assert.equal(code, 0, output);
  assert.match(output, /received 1 SVID\n.*\nspiffe:\/\/example\.org\/web /);
  const [folder] = readdirSync(join(directory, 'svids'));
  assert.match(folder!, /^pid-\d+$/);
  assert.deepEqual(readdirSync(join(directory, 'svids', folder!)).sort(), [
    'bundle.pem',
    'crl.pem',
    'identities.json',
    'key.pem',
    'svid.pem',
  ]);
});
