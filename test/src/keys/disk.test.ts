import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { Fault } from '../../../src/errors.ts';
import { diskKeys } from '../../../src/keys/disk.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { fault } from '../../support/fault.ts';

async function folder(): Promise<{ path: string; close(): Promise<void> }> {
  const made = await mkdtemp(join(tmpdir(), 'mutual-'));
  return { path: join(made, 'keys.json'), close: () => rm(made, { recursive: true }) };
}

keyStoreSuite('disk', { exportable: true }, async () => {
  const { path, close } = await folder();
  return { keys: await diskKeys(path), reopen: () => diskKeys(path), close };
});

const inFolder = (what: string, body: (path: string) => Promise<void>): void => {
  test(what, async () => {
    const { path, close } = await folder();
    try {
      await body(path);
    } finally {
      await close();
    }
  });
};

inFolder("the key file is its owner's alone whatever the umask, and nothing is left beside it", async (path) => {
  const before = process.umask(0);
  try {
    await (await diskKeys(path)).generate('a', 'ec-p256');
  } finally {
    process.umask(before);
  }
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(path, '..')), ['keys.json']);
});

inFolder('the file is {"keys": {id: base64 PKCS#8}}, as SPIRE keeps it', async (path) => {
  const key = await (await diskKeys(path)).generate('agent-svid-A', 'ec-p256');
  assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), {
    keys: { 'agent-svid-A': key.exportPkcs8!().toString('base64') },
  });
});

inFolder('a file that others may read is refused with what to do', async (path) => {
  await (await diskKeys(path)).generate('a', 'ec-p256');
  for (const mode of [0o644, 0o640, 0o620, 0o601]) {
    await chmod(path, mode);
    await assert.rejects(diskKeys(path), fault('state/refused', new RegExp(`mode ${mode.toString(8)}`)));
  }
});

const p256 = generateKey('ec-p256').privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64');
for (const [name, content, why] of [
  ['nothing', '', /not JSON/],
  ['half a file', `{"keys":{"a":"${p256.slice(0, 20)}`, /not JSON/],
  ['something else', '{"secrets":{}}', /one member "keys"/],
  ['a list', '{"keys":[]}', /one member "keys"/],
  ['a key that is no text', '{"keys":{"a":5}}', /key "a" is not base64/],
  ['a key that is not base64', '{"keys":{"a":"??"}}', /key "a" is not base64/],
  ['a key that is no key', '{"keys":{"a":"AAAA"}}', /key "a" is not a PKCS#8/],
  [
    'a key of another type',
    `{"keys":{"a":"MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"}}`,
    /key "a": a key of type "ed25519"/,
  ],
  ['one name twice', `{"keys":{"a":"${p256}","a":"${p256}"}}`, /"a" twice/],
] as const) {
  inFolder(`a key file with ${name} is refused, says so, and shows no key`, async (path) => {
    await writeFile(path, content, { mode: 0o600 });
    await assert.rejects(diskKeys(path), (error) => {
      assert.ok(error instanceof Fault);
      assert.ok(!JSON.stringify([error.message, error.detail, error.hint]).includes(p256.slice(0, 20)));
      return fault('data/corrupt', why)(error);
    });
  });
}

inFolder('a change that cannot be written does not count', async (path) => {
  const keys = await diskKeys(path);
  await keys.generate('a', 'ec-p256');
  await rm(join(path, '..'), { recursive: true });
  await assert.rejects(keys.generate('b', 'ec-p256'), fault('system/failed', /cannot be written/));
  await assert.rejects(keys.remove('a'), fault('system/failed'));
  assert.deepEqual(
    (await keys.list()).map(({ id }) => id),
    ['a'],
  );
  await mkdir(join(path, '..'));
  await keys.generate('b', 'ec-p256');
  assert.deepEqual(idsOf(await (await diskKeys(path)).list()), ['b'], 'the folder is there, and no file in it');
});

inFolder('a file that is removed takes its keys with it, and what is put there is read', async (path) => {
  const keys = await diskKeys(path);
  const held = await keys.generate('a', 'ec-p256');
  const copy = await readFile(path);
  await rm(path);
  assert.equal(await keys.get('a'), undefined);
  assert.deepEqual(await keys.list(), []);
  await signs(held);
  await writeFile(path, copy, { mode: 0o600 });
  assert.deepEqual((await keys.get('a'))?.publicKey, held.publicKey);
  await rm(path);
  await keys.generate('b', 'ec-p256');
  assert.deepEqual(idsOf(await (await diskKeys(path)).list()), ['b']);
});

inFolder('a file that is spoilt while it is in use is told, and what is held goes on signing', async (path) => {
  const keys = await diskKeys(path);
  const held = await keys.generate('a', 'ec-p256');
  await chmod(path, 0o644);
  await assert.rejects(keys.get('a'), fault('state/refused', /has mode 644: others than its owner have access/));
  await chmod(path, 0o600);
  await writeFile(path, 'garbage');
  await assert.rejects(keys.generate('b', 'ec-p256'), fault('data/corrupt'));
  assert.equal(await readFile(path, 'utf8'), 'garbage', 'nothing is written over it');
  await signs(held);
});

const idsOf = (keys: readonly { id: string }[]): string[] => keys.map(({ id }) => id);
