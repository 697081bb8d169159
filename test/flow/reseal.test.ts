/** The change of a passphrase: real files of a server and an agent, and a key that servers share in a database. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readAgentOptions } from '../../agent/config.ts';
import { resealAgent } from '../../agent/reseal.ts';
import { openState } from '../../agent/state.ts';
import { journalKeys } from '../../server/authority/journal-keys.ts';
import { sharedKeysDocument } from '../../server/authority/token-keys.ts';
import { readServerOptions } from '../../server/config.ts';
import { resealServer } from '../../server/reseal.ts';
import { startServer } from '../../server/server.ts';
import { openStore } from '../../server/store/open.ts';
import { diskKeys } from '../../src/keys/disk.ts';
import { openSealer } from '../../src/keys/open.ts';
import { passphraseWrapper, type Sealer, sealer } from '../../src/keys/seal.ts';
import { createLog } from '../../src/log.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { systemRandom } from '../../src/run/random.ts';
import { drivenClock } from '../support/clock.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { api, td } from '../support/server.ts';

async function place(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const file = async (name: string, passphrase: string): Promise<string> => {
    await writeFile(join(dir, name), `${passphrase}\n`, { mode: 0o600 });
    return join(dir, name);
  };
  return {
    dir,
    old: await file('old', 'the first passphrase'),
    next: await file('next', 'the second passphrase'),
    file,
  };
}
const sealedBy = (passphraseFile: string, nextPassphraseFile?: string) => ({
  'keys-seal-by': 'passphrase',
  'keys-seal-passphrase-file': passphraseFile,
  ...(nextPassphraseFile !== undefined && { 'keys-seal-next-passphrase-file': nextPassphraseFile }),
});

/** As the options do it, at a cost that a test can bear. */
const by = (passphrase: string, next?: string) =>
  sealer(passphraseWrapper(passphrase, systemRandom, { cost: { n: 2 ** 10, r: 8, p: 1 }, next }), systemRandom);

test('a server has the same authorities after its passphrase was changed, and the old one opens nothing', async (t) => {
  const { dir, old, next, file } = await place(t);
  const clock = drivenClock();
  const log = createLog({ level: 'error', format: 'json', clock, write: () => {} });
  const dataDir = join(dir, 'data');
  const optionsOf = async (seal: object) => {
    const flags = { trustDomain: td, dataDir, listen: '127.0.0.1:0', 'keys-share-jwt': true, ...seal };
    return (await readServerOptions({ flags })).options;
  };
  const start = async (seal: object) => startServer(await optionsOf(seal), { clock, random: systemRandom, log });
  const authorities = async (seal: object) => {
    const server = await start(seal);
    const admin = connectUnix(server.adminSocket);
    const ids = [];
    for (const kind of ['X509', 'JWT'])
      ids.push((await admin.unary(api.localAuthority, `Get${kind}AuthorityState`, {})).active.authority_id);
    admin.close();
    await server.close();
    return ids;
  };
  const reseal = async (seal: object) => resealServer(await optionsOf(seal), keyPorts({}, clock));
  // What is sealed here later is sealed alike, and so at little cost.
  await mkdir(dataDir, { mode: 0o700 });
  await (await diskKeys(join(dataDir, 'keys.json'), by('the first passphrase'))).generate('a', 'ec-p256');
  const before = await authorities(sealedBy(old));

  await assert.rejects(reseal(sealedBy(old)), fault('config/invalid', /nextPassphraseFile is not given/));
  await assert.rejects(reseal(sealedBy(old, old)), fault('config/invalid', /is the one there is/));
  const strange = await file('strange', 'a third');
  const unchanged = await readFile(join(dataDir, 'keys.json'));
  await assert.rejects(reseal(sealedBy(strange, next)), fault('keys/sealed', /passphrase does not open/));
  assert.deepEqual(await readFile(join(dataDir, 'keys.json')), unchanged);
  const running = await start(sealedBy(old, next));
  await assert.rejects(reseal(sealedBy(old, next)), fault('state/refused', /the server runs/));
  await running.close();

  const results = async () => (await reseal(sealedBy(old, next))).map(({ result }) => result);
  assert.deepEqual(await results(), ['resealed', 'resealed']);
  // As after a crash between the two: the file is the one before.
  await writeFile(join(dataDir, 'keys.json'), unchanged, { mode: 0o600 });
  assert.deepEqual(await authorities(sealedBy(old, next)), before, 'one opens by the old, one by the new');
  assert.deepEqual(await results(), ['already', 'resealed']);
  assert.deepEqual(await authorities(sealedBy(next)), before);
  await assert.rejects(start(sealedBy(old)), fault('keys/sealed', /passphrase does not open/));
});

test('servers that know both passphrases go on with the key they share, whichever of them seals it', async (t) => {
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const open = (seal: Sealer) => journalKeys(store.journal, sharedKeysDocument, seal);
  const both = await open(by('old', 'next'));
  const behind = await open(by('old'));
  const first = await both.generate('first', 'ec-p256');
  // As it was sealed, and not by what is to come: one that does not know of it opens it.
  await behind.generate('second', 'ec-p256');
  assert.deepEqual((await behind.get('first'))!.publicKey, first.publicKey);

  const { text, version } = (await store.journal.get(sharedKeysDocument))!;
  const name = `${sharedKeysDocument} in the database`;
  const plain = await by('old').open(Buffer.from(text), name);
  assert.ok(
    await store.journal.put(sharedKeysDocument, (await by('next').seal(plain, name)).toString('utf8'), version),
  );
  await both.generate('third', 'ec-p256');
  const changed = await open(by('next'));
  assert.deepEqual(
    (await changed.list()).map(({ id }) => id),
    ['first', 'second', 'third'],
  );
});

test('what is in one file by the old passphrase, and in another by the next, each stays as it is', async (t) => {
  const { dir } = await place(t);
  const [one, two] = [join(dir, 'one.json'), join(dir, 'two.json')];
  await (await diskKeys(one, by('old'))).generate('a', 'ec-p256');
  await (await diskKeys(two, by('next'))).generate('a', 'ec-p256');
  const both = by('old', 'next');
  const [first, second] = [await diskKeys(one, both), await diskKeys(two, both)];
  await first.generate('b', 'ec-p256');
  await second.generate('b', 'ec-p256');
  await first.generate('c', 'ec-p256');
  assert.equal((await (await diskKeys(one, by('old'))).list()).length, 3);
  assert.equal((await (await diskKeys(two, by('next'))).list()).length, 2);
});

test("an agent's files: those that were plain are sealed, and those that are not there are not made", async (t) => {
  const { dir, old, next } = await place(t);
  const dataDir = join(dir, 'agent');
  const optionsOf = async (seal: object) => {
    const trusts = { 'trust-bundle': join(dir, 'none.pem'), 'keys-store': 'disk' };
    const flags = { trustDomain: td, dataDir, server: '127.0.0.1:1', ...trusts, ...seal };
    return (await readAgentOptions({ flags })).options;
  };
  const bundle = {
    ...{ trustDomain: td, x509Authorities: [], jwtAuthorities: [], witAuthorities: [] },
    ...{ refreshHint: 300, sequence: 1n },
  };
  const plain = await openState(dataDir, td, true);
  await plain.saveNode(undefined, bundle);
  const options = await optionsOf(sealedBy(old, next));
  const reseal = async () => (await resealAgent(options, keyPorts())).map(({ result }) => result);
  assert.deepEqual(await reseal(), ['sealed, was plain', 'absent']);
  assert.deepEqual(await reseal(), ['already', 'absent']);
  const { keys } = await optionsOf(sealedBy(next));
  const state = await openState(dataDir, td, true, await openSealer(keys, keyPorts()));
  assert.equal(state.bundle?.trustDomain, td);
});
