import assert from 'node:assert/strict';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { filesStore } from '../../../agent/stores/files.ts';
import { keyPem } from '../../../agent/stores/secret.ts';
import { readSettings } from '../../../agent/stores/settings.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { secrets, svidStoreSuite } from '../../suites/svid-store.ts';
import { fault } from '../../support/fault.ts';

const settings = ['name', 'uid', 'gid'];
const { signal } = new AbortController();
const nameIn = (selectors: readonly string[]): string => selectors[0]!.replace('files:name:', '');

svidStoreSuite('files', async () => {
  const root = mkdtempSync(join(tmpdir(), 'mu-'));
  const directory = join(root, 'svids');
  let count = 0;
  return {
    store: filesStore({ directory }, systemRandom),
    settings,
    selectors: () => [`files:name:web.${count++}`],
    async read(selectors) {
      const folder = join(directory, nameIn(selectors));
      const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
      if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) return undefined;
      const federated = { 'other.org': read('bundle.other.org.pem') };
      return { chain: read('svid.pem'), key: read('key.pem'), bundle: read('bundle.pem'), federated };
    },
    async occupy(selectors) {
      mkdirSync(join(directory, nameIn(selectors)));
      writeFileSync(join(directory, nameIn(selectors), 'mine'), 'x');
    },
    isOccupied: async (selectors) => readFileSync(join(directory, nameIn(selectors), 'mine'), 'utf8') === 'x',
    // Root may write anywhere, but not below a file.
    async down() {
      renameSync(directory, `${directory}.kept`);
      writeFileSync(directory, '');
    },
    async up() {
      rmSync(directory);
      renameSync(`${directory}.kept`, directory);
    },
    close: async () => rmSync(root, { recursive: true, force: true }),
  };
});

function store(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const directory = join(root, 'svids');
  const files = filesStore({ directory }, systemRandom);
  const place = (...selectors: string[]) => files.place(readSettings(selectors.map(parseSelector), settings));
  return { root, directory, files, place };
}
const mode = (path: string): number => statSync(path).mode & 0o777;

test('only its owner reads a folder, also under an open umask; the directory lets others through to theirs', async (t) => {
  const before = process.umask(0);
  t.after(() => process.umask(before));
  const { directory, files, place } = store(t);
  await files.put(place('files:name:web'), secrets()(), signal);
  const folder = join(directory, 'web');
  assert.equal(mode(directory), 0o711);
  assert.equal(mode(folder), 0o700);
  for (const name of readdirSync(folder)) assert.equal(mode(join(folder, name)), 0o600, name);
});

test('a folder is given to a user and a group; whoever may not give files away is told so', async (t) => {
  const { directory, files, place } = store(t);
  const put = files.put(place('files:name:web', 'files:uid:4321', 'files:gid:4322'), secrets()(), signal);
  if (process.getuid!() !== 0) return assert.rejects(put, fault('store/unavailable', /cannot be written/));
  await put;
  const folder = join(directory, 'web');
  assert.equal(mode(folder), 0o750);
  for (const path of [folder, ...readdirSync(folder).map((name) => join(folder, name))]) {
    const { uid, gid } = statSync(path);
    assert.deepEqual([uid, gid], [4321, 4322], path);
  }
  assert.equal(mode(join(folder, 'key.pem')), 0o640);
});

test('a renewal replaces the folder whole, and leaves no other behind', async (t) => {
  const { directory, files, place } = store(t);
  const make = secrets();
  await files.put(place('files:name:web'), make(), signal);
  const first = readlinkSync(join(directory, 'web'));
  // What a program that was killed half-way leaves; the second is of an entry "web.site".
  mkdirSync(join(directory, '.web.0123456789ab'));
  mkdirSync(join(directory, '.web.site.0123456789ab'));
  await files.put(place('files:name:web'), make(), signal);
  const second = readlinkSync(join(directory, 'web'));
  assert.notEqual(first, second);
  assert.deepEqual(readdirSync(directory).sort(), [second, '.web.site.0123456789ab', 'web'].sort());
});

test('of puts at once the last one stays, whole', async (t) => {
  const { directory, files, place } = store(t);
  const make = secrets();
  const all = Array.from({ length: 8 }, make);
  await Promise.all(all.map((secret) => files.put(place('files:name:web'), secret, signal)));
  assert.equal(readdirSync(directory).length, 2);
  assert.equal(readFileSync(join(directory, 'web', 'key.pem'), 'utf8'), keyPem(all.at(-1)!.pkcs8));
  assert.equal(readdirSync(join(directory, 'web')).length, 4);
});

test('a link that leads elsewhere is not followed', async (t) => {
  const { root, directory, files, place } = store(t);
  mkdirSync(join(root, 'elsewhere'));
  mkdirSync(directory);
  symlinkSync(join(root, 'elsewhere'), join(directory, 'web'));
  await assert.rejects(files.put(place('files:name:web'), secrets()(), signal), fault('store/foreign'));
  assert.deepEqual(readdirSync(join(root, 'elsewhere')), []);
});

test('a directory into which others may write is refused', async (t) => {
  const { directory, files, place } = store(t);
  mkdirSync(directory);
  chmodSync(directory, 0o777);
  const put = files.put(place('files:name:web'), secrets()(), signal);
  await assert.rejects(put, fault('store/unavailable', /others may write/));
  assert.deepEqual(readdirSync(directory), []);
});

test('CVE-2021-41803 names that are more than a name, and ids that are none, are refused with the selector', (t) => {
  const { place } = store(t);
  for (const name of ['..', '.', '.hidden', 'a/b', '../web', 'a b', 'é', 'x'.repeat(129)])
    assert.throws(() => place(`files:name:${name}`), fault('input/invalid', /files:name:/), name);
  for (const uid of ['-1', 'root', '4294967295', '1e3', '0x10'])
    assert.throws(() => place('files:name:web', `files:uid:${uid}`), fault('input/invalid', /files:uid:/), uid);
});
