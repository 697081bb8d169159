import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { diskKeys } from '../../../src/keys/disk.ts';
import { isSealed, type KeyWrapper, passphraseWrapper, sealer } from '../../../src/keys/seal.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { fault } from '../../support/fault.ts';

/** Weak and quick; that the real cost is the default is a test of its own. */
const quick = { n: 1024, r: 8, p: 1 };
const by = (passphrase: string) => sealer(passphraseWrapper(passphrase, systemRandom, { cost: quick }), systemRandom);

async function folder(): Promise<{ path: string; close(): Promise<void> }> {
  const made = await mkdtemp(join(tmpdir(), 'mutual-'));
  return { path: join(made, 'keys.json'), close: () => rm(made, { recursive: true }) };
}
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

keyStoreSuite('disk sealed by a passphrase', { exportable: true, types: ['ec-p256', 'rsa-2048'] }, async () => {
  const { path, close } = await folder();
  return { keys: await diskKeys(path, by('correct horse')), reopen: () => diskKeys(path, by('correct horse')), close };
});

inFolder('a sealed file shows neither keys nor their names, and opens only by its passphrase', async (path) => {
  const key = await (await diskKeys(path, by('correct horse'))).generate('x509-secret-name', 'ec-p256');
  const content = await readFile(path);
  assert.ok(isSealed(content));
  for (const secret of [key.exportPkcs8!(), Buffer.from('x509-secret-name'), Buffer.from('correct horse')]) {
    assert.ok(!content.includes(secret));
    assert.ok(!content.includes(secret.toString('base64').slice(4, 20)));
  }
  await assert.rejects(
    diskKeys(path, by('wrong')),
    fault('keys/sealed', /^the passphrase does not open ".*keys\.json"$/),
  );
  await assert.rejects(diskKeys(path), fault('keys/sealed', /is sealed, and nothing was given to open it$/));
  await signs((await (await diskKeys(path, by('correct horse'))).get('x509-secret-name'))!);
});

inFolder('a plain file is taken as it is and sealed at the first write; nothing of it is left plain', async (path) => {
  const old = await (await diskKeys(path)).generate('old', 'ec-p256');
  const keys = await diskKeys(path, by('correct horse'));
  assert.deepEqual((await keys.get('old'))?.publicKey, old.publicKey);
  assert.ok(!isSealed(await readFile(path)));
  await keys.generate('new', 'ec-p256');
  assert.ok(isSealed(await readFile(path)));
  assert.ok(!(await readFile(path)).includes(old.exportPkcs8!().toString('base64').slice(0, 20)));
  assert.equal((await (await diskKeys(path, by('correct horse'))).list()).length, 2);
});

inFolder('each write has a nonce of its own; the passphrase is stretched once a program', async (path) => {
  let stretched = 0;
  const wrapper = passphraseWrapper('correct horse', systemRandom, { cost: quick });
  const counting: KeyWrapper = {
    by: wrapper.by,
    wrap: (key) => wrapper.wrap(key).finally(() => stretched++),
    unwrap: (wrapped, where) => wrapper.unwrap(wrapped, where).finally(() => stretched++),
  };
  const keys = await diskKeys(path, sealer(counting, systemRandom));
  const seen = new Set<string>();
  for (const id of ['a', 'b', 'c', 'd']) {
    await keys.generate(id, 'ec-p256');
    seen.add(JSON.parse(await readFile(path, 'utf8')).sealed.data.slice(0, 16));
  }
  assert.equal(seen.size, 4);
  assert.equal(stretched, 1);
});

test('without wishes the passphrase costs an attacker 128 MiB a guess', async () => {
  const wrapped = await passphraseWrapper('x', systemRandom).wrap(Buffer.alloc(32));
  assert.deepEqual([wrapped.kdf, wrapped.n, wrapped.r, wrapped.p], ['scrypt', 131_072, 8, 1]);
});

// biome-ignore lint/suspicious/noExplicitAny: a file to be broken.
type Sealed = any;
const broken: readonly (readonly [
  string,
  (sealed: Sealed) => unknown,
  'data/corrupt' | 'data/foreign' | 'keys/sealed',
  RegExp,
])[] = [
  ['another version', (sealed) => (sealed.version = 2), 'data/foreign', /newer version of this program \(format 2\)/],
  ['no version', (sealed) => delete sealed.version, 'data/corrupt', /lacks a part/],
  ['another way to open it', (sealed) => (sealed.by = 'vault'), 'keys/sealed', /is sealed by vault, not by passphrase/],
  ['content that was cut', (sealed) => (sealed.data = sealed.data.slice(0, -8)), 'data/corrupt', /was changed/],
  ['no content', (sealed) => (sealed.data = ''), 'data/corrupt', /was changed/],
  ['a salt that was changed', (sealed) => (sealed.wrapped.salt = 'AAAA'), 'keys/sealed', /passphrase does not open/],
  ['a greedy cost', (sealed) => (sealed.wrapped.n = 2 ** 30), 'data/corrupt', /scrypt parameters are out of bounds/],
  ['a senseless cost', (sealed) => (sealed.wrapped.n = 1000), 'data/corrupt', /scrypt parameters are out of bounds/],
  ['another derivation', (sealed) => (sealed.wrapped.kdf = 'md5'), 'data/corrupt', /scrypt parameters/],
  ['something added to its header', (sealed) => (sealed.wrapped.more = 1), 'data/corrupt', /was changed/],
];
for (const [what, change, code, message] of broken) {
  inFolder(`a sealed file with ${what} is refused and says so`, async (path) => {
    await (await diskKeys(path, by('correct horse'))).generate('a', 'ec-p256');
    const content = JSON.parse(await readFile(path, 'utf8'));
    change(content.sealed);
    await writeFile(path, JSON.stringify(content));
    await assert.rejects(diskKeys(path, by('correct horse')), fault(code, message));
  });
}

inFolder('every single bit of a sealed file counts', async (path) => {
  await (await diskKeys(path, by('correct horse'))).generate('a', 'ec-p256');
  const content = JSON.parse(await readFile(path, 'utf8'));
  const data = Buffer.from(content.sealed.data, 'base64');
  for (let at = 0; at < data.length; at += 7) {
    const changed = Buffer.from(data);
    changed[at]! ^= 1 << (at % 8);
    content.sealed.data = changed.toString('base64');
    await writeFile(path, JSON.stringify(content));
    await assert.rejects(
      diskKeys(path, by('correct horse')),
      fault('data/corrupt', /was changed since it was written/),
    );
  }
});
