/** A JWT authority that several servers share: what each may do at any moment, and what comes of doing it at once. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type Authority, startAuthority } from '../../../server/authority/authority.ts';
import { journalKeys } from '../../../server/authority/journal-keys.ts';
import { type JwtSigner, jwtKind } from '../../../server/authority/jwt.ts';
import { ownBundle } from '../../../server/authority/own-bundle.ts';
import { retireSlots } from '../../../server/authority/slots-document.ts';
import { openStore } from '../../../server/store/open.ts';
import { Fault } from '../../../src/errors.ts';
import type { KeyStore } from '../../../src/keys/key-store.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { passphraseWrapper, sealer } from '../../../src/keys/seal.ts';
import { silentLog } from '../../../src/log.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { drivenClock } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { td } from '../../support/server.ts';

const hour = 3_600_000;
const cheap = { n: 1024, r: 8, p: 1 };

async function place(t: TestContext) {
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const clock = drivenClock();
  const keysOf = () =>
    journalKeys(
      store.journal,
      'keys@shared',
      sealer(passphraseWrapper('a passphrase', systemRandom, { cost: cheap }), systemRandom),
    );
  const start = async (keys?: KeyStore, shared?: 'database' | 'elsewhere' | 'own'): Promise<Authority<JwtSigner>> =>
    startAuthority(jwtKind(24 * hour, systemRandom), {
      journal: store.journal,
      keys: keys ?? (await keysOf()),
      bundle: ownBundle(store.bundles, td, 300),
      clock,
      random: systemRandom,
      log: silentLog,
      serverName: 'one',
      shared: shared === 'own' ? undefined : (shared ?? 'database'),
      keyType: 'ec-p256',
    });
  const startMany = (count: number) => Promise.all(Array.from({ length: count }, () => start()));
  const published = async (): Promise<string[]> =>
    ((await store.bundles.get(td))?.jwtAuthorities ?? []).map(
      ({ keyId, tainted }) => `${keyId}${tainted ? ' tainted' : ''}`,
    );
  const keyNames = async (): Promise<string[]> => (await (await keysOf()).list()).map(({ id }) => id);
  return { store, clock, keysOf, start, startMany, published, keyNames };
}

const kids = (servers: readonly Authority<JwtSigner>[]): Set<string> =>
  new Set(servers.map(({ signer }) => signer.value.keyId));
const lookAll = (servers: readonly Authority<JwtSigner>[]) => Promise.all(servers.map((one) => one.keepFresh()));

test('ten servers that start at once on an empty database have one key', async (t) => {
  const { startMany, published, keyNames } = await place(t);
  const servers = await startMany(10);
  assert.equal(kids(servers).size, 1);
  assert.deepEqual(await published(), [...kids(servers)]);
  assert.equal((await keyNames()).length, 1, 'whoever came second left no key behind');
});

test('over days and with restarts there are at most four keys, and every server signs with a published one', async (t) => {
  const { clock, start, startMany, published, keyNames } = await place(t);
  const servers = await startMany(4);
  let most = 0;
  const seen = new Set<string>();
  for (let step = 0; step < 6 * 48; step++) {
    clock.jump(hour / 2);
    if (step % 5 === 0) servers[step % 4] = await start();
    await lookAll(servers);
    // Of those that raced, some may have looked a moment too early.
    await lookAll(servers);
    const now = await published();
    most = Math.max(most, now.length);
    for (const kid of kids(servers)) {
      assert.ok(now.includes(kid), 'what signs is published');
      seen.add(kid);
    }
    assert.equal(kids(servers).size, 1);
    assert.ok((await keyNames()).length <= 3, 'active, prepared, old');
  }
  assert.ok(seen.size >= 6, `${seen.size} keys came and went`);
  assert.ok(most <= 4, `${most} keys`);
});

test('what one does another sees at its next look, or when it is told to look', async (t) => {
  const { startMany, published } = await place(t);
  const [one, two] = (await startMany(2)) as [Authority<JwtSigner>, Authority<JwtSigner>];
  const first = one.signer.value.keyId;
  const { id: next } = await one.prepare();
  await two.catchUp();
  assert.equal(two.state().prepared?.id, next);
  await two.activate(next);
  assert.equal(two.signer.value.keyId, next);
  assert.equal(one.signer.value.keyId, first, 'until it looks');
  await one.keepFresh();
  assert.equal(one.signer.value.keyId, next);
  await one.taint(first);
  assert.deepEqual(new Set(await published()), new Set([next, `${first} tainted`]));
  await two.revoke(first);
  assert.deepEqual(await published(), [next]);
});

test('the same step asked of all servers at once is done once', async (t) => {
  const { startMany, published, keyNames } = await place(t);
  const servers = await startMany(5);
  const [first] = kids(servers);
  const made = await Promise.all(servers.map((one) => one.prepare(() => true)));
  assert.equal(new Set(made.map(({ id }) => id)).size, 1);
  const next = made[0]!.id;
  await Promise.all(servers.map((one) => one.activate(next)));
  assert.deepEqual([...kids(servers)], [next]);
  await Promise.all(servers.map((one) => one.taint(first!)));
  const revoked = await Promise.allSettled(servers.map((one) => one.revoke(first!)));
  assert.ok(revoked.some(({ status }) => status === 'fulfilled'));
  for (const one of revoked)
    if (one.status === 'rejected') assert.match((one.reason as Error).message, /no old authority/);
  assert.deepEqual(await published(), [next]);
  assert.equal((await keyNames()).length, 1);
});

test('a key that a crash left without a name goes after an hour, and not while another server may be about to name it', async (t) => {
  const { clock, keysOf, start, keyNames } = await place(t);
  await start();
  const keys = await keysOf();
  await keys.generate(`jwt-${clock.now().toString(16).padStart(12, '0')}0123456789abcdef`, 'ec-p256');
  await start();
  assert.equal((await keyNames()).length, 2);
  clock.jump(hour);
  await start();
  assert.equal((await keyNames()).length, 1);
});

test('keys that were deleted while servers run: one of them makes another, all sign with it', async (t) => {
  const { clock, keysOf, startMany, published } = await place(t);
  const servers = await startMany(3);
  const [lost] = kids(servers);
  const keys = await keysOf();
  for (const { id } of await keys.list()) await keys.remove(id);
  await lookAll(servers);
  assert.deepEqual([...kids(servers)], [lost], 'what each still holds signs until the new one is known everywhere');
  assert.equal((await published()).length, 2);
  clock.jump(60_000);
  await lookAll(servers);
  await lookAll(servers);
  assert.equal(kids(servers).size, 1);
  assert.ok(!kids(servers).has(lost!));
  assert.equal((await published()).length, 2, 'what the lost one signed is good until it ends');
});

test('a server that has another key store neither starts nor takes the keys from the others', async (t) => {
  const { start, published } = await place(t);
  const theirs = memoryKeys();
  const good = await start(theirs, 'elsewhere');
  const before = await published();
  await assert.rejects(
    start(memoryKeys(), 'elsewhere'),
    fault('keys/lost', /the JWT authority that all servers share has a key that is not in this key store/),
  );
  assert.deepEqual(await published(), before);
  assert.deepEqual(good.state().prepared, undefined);

  // One whose store goes wrong while it runs says so, signs with what it has, and leaves the others alone.
  const copy = memoryKeys();
  const stray: KeyStore = { ...theirs, get: async (id) => (known.has(id) ? theirs.get(id) : copy.get(id)) };
  const known = new Set((await theirs.list()).map(({ id }) => id));
  const other = await start(stray, 'elsewhere');
  await good.activate((await good.prepare()).id);
  const now = await published();
  await assert.rejects(other.keepFresh(), fault('keys/lost'));
  assert.throws(() => other.check(), Fault);
  assert.deepEqual(await published(), now);
});

test('a server that had its own keys before gives them up: they stay published, sign no more, and are not waited for', async (t) => {
  const { store, start, published } = await place(t);
  const own = memoryKeys();
  const before = (await start(own, 'own')).signer.value.keyId;
  const shared = await start();
  for (const name of await retireSlots(store.journal, 'jwt@one')) await own.remove(name);
  assert.deepEqual(await published(), [before, shared.signer.value.keyId]);
  assert.deepEqual(await own.list(), []);
  const slots = JSON.parse((await store.journal.get('jwt@one'))!.text);
  assert.deepEqual([slots.active, slots.prepared, slots.old.id], [undefined, undefined, before]);
  assert.deepEqual(await retireSlots(store.journal, 'jwt@one'), [], 'once');
});
