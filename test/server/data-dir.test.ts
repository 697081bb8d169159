/** Whose data directory it is, and who may read what is in it. */
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readServerOptions } from '../../server/config.ts';
import { openDataDir } from '../../server/data-dir.ts';
import { startServer } from '../../server/server.ts';
import { createLog } from '../../src/log.ts';
import { systemRandom } from '../../src/run/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { drivenClock } from '../support/clock.ts';
import { refusalOf } from '../support/server.ts';

const td = parseTrustDomain('example.org');
async function place(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}
const mode = async (path: string) => ((await stat(path)).mode & 0o777).toString(8);

test('a directory keeps its name, and its trust domain', async (t) => {
  const dir = join(await place(t), 'a', 'b');
  const name = await openDataDir(dir, td, systemRandom);
  assert.match(name, /^[0-9a-f]{16}$/);
  assert.equal(await openDataDir(dir, td, systemRandom), name);
  const fault = await refusalOf(openDataDir(dir, parseTrustDomain('b.org'), systemRandom));
  assert.equal(fault.code, 'data/foreign');
  assert.match(fault.message, /belongs to trust domain "example.org", not "b.org"/);
});

test('a file that this program did not write is refused, whatever is in it', async (t) => {
  const dir = await place(t);
  for (const text of [
    '',
    '{',
    'null',
    '7',
    '[]',
    '{"trustDomain":"example.org"}',
    '{"serverName":"x"}',
    '{"trustDomain":7,"serverName":"x"}',
  ]) {
    await writeFile(join(dir, 'server.json'), text);
    const fault = await refusalOf(openDataDir(dir, td, systemRandom));
    assert.equal(fault.code, 'data/corrupt', text);
    assert.ok(fault.message.includes('server.json') && fault.hint);
  }
});

test('a path that cannot be a directory says so, and names it', async (t) => {
  const dir = await place(t);
  await writeFile(join(dir, 'file'), '');
  const fault = await refusalOf(openDataDir(join(dir, 'file', 'data'), td, systemRandom));
  assert.equal(fault.code, 'state/refused');
  assert.ok(fault.message.includes('file/data') && fault.hint);
});

test('cure53 SPI-01-002 under a umask of 0 nothing is readable for others, in a directory that was there before too', async (t) => {
  const before = process.umask(0);
  t.after(() => void process.umask(before));
  for (const there of [false, true]) {
    const dataDir = join(await place(t), 'data');
    if (there) {
      await mkdir(dataDir);
      await chmod(dataDir, 0o755);
    }
    const clock = drivenClock();
    const { options } = await readServerOptions({ flags: { trustDomain: td, dataDir, listen: '127.0.0.1:0' } });
    const log = createLog({ level: 'panic', format: 'json', clock, write: () => {} });
    const server = await startServer(options, { clock, random: systemRandom, log });
    try {
      if (!there) assert.equal(await mode(dataDir), '700');
      assert.equal(await mode(join(dataDir, 'private')), '700');
      const files = (await readdir(dataDir, { withFileTypes: true }))
        .filter((one) => one.isFile())
        .map(({ name }) => name);
      assert.ok(
        files.includes('keys.json') && files.includes('server.json') && files.includes('mutual.db'),
        files.join(),
      );
      for (const name of files) assert.equal(await mode(join(dataDir, name)), '600', name);
    } finally {
      await server.close();
    }
  }
});
