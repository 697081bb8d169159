/** The key of an authority that goes while the server runs. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startAuthority } from '../../../server/authority/authority.ts';
import { jwtKind } from '../../../server/authority/jwt.ts';
import { ownBundle } from '../../../server/authority/own-bundle.ts';
import { openStore } from '../../../server/store/open.ts';
import { Fault } from '../../../src/errors.ts';
import type { Key, KeyStore } from '../../../src/keys/key-store.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { lost, unreachable } from '../../../src/keys/remote-keys.ts';
import { silentLog } from '../../../src/log.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { drivenClock } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { td } from '../../support/server.ts';

const hour = 3_600_000;

/** Keys that sign only while they are in their store, as elsewhere. */
function remote(): { keys: KeyStore; steal(id: string): Promise<void>; out: boolean } {
  const inner = memoryKeys();
  const reach = (): void => {
    if (store.out) throw unreachable('Vault', 'out');
  };
  const outside = (key: Key): Key => ({
    ...key,
    async sign(data, encoding) {
      reach();
      if ((await inner.get(key.id)) === undefined) throw lost('Vault', key.id, 'not found');
      return key.sign(data, encoding);
    },
  });
  const store = {
    out: false,
    steal: (id: string) => inner.remove(id),
    keys: {
      async generate(id, type) {
        reach();
        return outside(await inner.generate(id, type));
      },
      async get(id) {
        reach();
        const key = await inner.get(id);
        return key && outside(key);
      },
      list: () => inner.list(),
      remove: (id) => inner.remove(id),
    } satisfies KeyStore as KeyStore,
  };
  return store;
}

async function under(t: TestContext, keys: KeyStore, beforePublished?: () => Promise<void>) {
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const clock = drivenClock();
  const start = () =>
    startAuthority(jwtKind(24 * hour, systemRandom), {
      journal: store.journal,
      keys,
      bundle: ownBundle(store.bundles, td, 300),
      clock,
      random: systemRandom,
      log: silentLog,
      serverName: 'one',
      keyType: 'ec-p256',
      ...(beforePublished && { beforePublished }),
    });
  const authority = await start();
  const published = async () => (await store.bundles.get(td))!.jwtAuthorities.map(({ keyId }) => keyId);
  return { clock, authority, published, start };
}

test('a key that is gone: another is made, published and signs at the next look; the lost one stays published', async (t) => {
  const { keys, steal } = remote();
  const { authority, published } = await under(t, keys);
  const before = authority.state().active!;
  await steal(before.keyId);
  await authority.keepFresh();
  const { keyId } = authority.signer.value;
  assert.notEqual(keyId, before.id);
  assert.deepEqual(await published(), [before.id, keyId]);
  await authority.signer.value.key.sign(Buffer.from('x'), 'raw');
  authority.check();
  assert.deepEqual(authority.state().old?.id, before.id);
  await authority.keepFresh();
  assert.equal(authority.signer.value.keyId, keyId, 'once');
});

test('what was prepared, and is known everywhere, takes the place of a lost one', async (t) => {
  const { keys, steal } = remote();
  const { authority } = await under(t, keys);
  const { id } = await authority.prepare();
  await steal(authority.state().active!.keyId);
  await authority.keepFresh();
  assert.equal(authority.signer.value.keyId, id);
});

test('while none can be made the check says that the key is lost, and it ends when one is', async (t) => {
  const { keys, steal } = remote();
  let refused = true;
  const poor: KeyStore = {
    ...keys,
    generate: (id, type) =>
      refused && started ? Promise.reject(unreachable('Vault', 'no right')) : keys.generate(id, type),
  };
  let started = false;
  const { authority, published } = await under(t, poor);
  started = true;
  await steal(authority.state().active!.keyId);
  for (let look = 0; look < 3; look++) {
    await assert.rejects(authority.keepFresh(), fault('keys/unavailable'));
    assert.throws(authority.check, (error: unknown) => {
      assert.ok(error instanceof Fault);
      assert.equal(error.code, 'keys/lost');
      assert.match(error.message, /^the JWT authority has lost its key "jwt-[0-9a-f]+"; a new one is being made$/);
      return true;
    });
  }
  assert.equal((await published()).length, 1, 'nothing half made');
  assert.equal(authority.state().prepared, undefined);
  refused = false;
  await authority.keepFresh();
  authority.check();
});

test('a key that only this process holds any more signs for the minute in which the next one becomes known', async (t) => {
  const keys = memoryKeys();
  const { clock, authority, published } = await under(t, keys);
  const before = authority.state().active!;
  await keys.remove(before.keyId);
  await authority.keepFresh();
  assert.equal(authority.signer.value.keyId, before.id);
  assert.equal((await published()).length, 2);
  authority.check();
  clock.jump(59_000);
  await authority.keepFresh();
  assert.equal(authority.signer.value.keyId, before.id);
  clock.jump(1_000);
  await authority.keepFresh();
  assert.notEqual(authority.signer.value.keyId, before.id);
});

test('a store that is away has lost nothing', async (t) => {
  const store = remote();
  const { authority, published } = await under(t, store.keys);
  store.out = true;
  await assert.rejects(authority.keepFresh(), fault('keys/unavailable'));
  authority.check();
  store.out = false;
  await authority.keepFresh();
  assert.equal((await published()).length, 1);
});

for (const when of ['at the start', 'at run time'] as const)
  test(`another key in the place of the authority's, ${when}, signs nothing: it counts as lost`, async (t) => {
    const { keys } = remote();
    const { clock, authority, published, start } = await under(t, keys);
    const before = authority.state().active!;
    // As when a key file comes from a backup of another server, or an alias is moved by hand.
    await keys.generate(before.keyId, 'ec-p384');
    const now = when === 'at the start' ? await start() : authority;
    await now.keepFresh();
    // What this process holds of the old one signs until the next is known.
    clock.jump(60_000);
    await now.keepFresh();
    const { signer } = now;
    assert.notEqual(signer.value.keyId, before.id);
    assert.equal(signer.value.algorithm, 'ES256');
    assert.deepEqual(await published(), [before.id, signer.value.keyId]);
  });

test('what could not be done before it is published is done before it is published', async (t) => {
  const done: string[] = [];
  let fails = false;
  const { authority, published } = await under(t, memoryKeys(), async () => {
    if (fails) throw unreachable('Vault', 'out');
    done.push('done');
  });
  done.length = 0;
  fails = true;
  await assert.rejects(authority.prepare(), fault('keys/unavailable'));
  await assert.rejects(authority.keepFresh(), fault('keys/unavailable'));
  assert.equal((await published()).length, 1);
  fails = false;
  await authority.keepFresh();
  assert.deepEqual(done, ['done']);
  assert.deepEqual(await published(), [authority.state().active!.id, authority.state().prepared!.id]);
});
