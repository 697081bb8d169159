import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gcpKmsKeys, gcpKmsWrapper } from '../../../src/keys/gcp-kms.ts';
import type { GcpKmsOptions } from '../../../src/keys/options.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { type DrivenClock, drivenClock } from '../../support/clock.ts';
import { type FakeGcpKms, fakeGcpKms } from '../../support/fake-gcp-kms.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';
import { calm, openedStores, passHours } from '../../support/key-stores.ts';

async function under() {
  const clock = drivenClock();
  const kms = await fakeGcpKms();
  const opened = openedStores();
  const ports = keyPorts({ 'google-auth-library': kms.package }, clock);
  const options: GcpKmsOptions = { keyRing: kms.keyRing, endpoint: kms.endpoint, protection: 'software' };
  const open = (server = 'one', trustDomain = 'example.org') =>
    opened.keep(gcpKmsKeys(options, { trustDomain, server }, ports));
  const close = async () => {
    await opened.close();
    await kms.close();
  };
  return { clock, kms, ports, options, open, close };
}

/** Versions are made in the background: time must go on while one waits for them. */
function withTime<T>(clock: DrivenClock, kms: FakeGcpKms, work: Promise<T>): Promise<T> {
  let over = false;
  const end = work.finally(() => {
    over = true;
  });
  end.catch(() => {});
  return (async () => {
    while (!over) {
      await new Promise((resolve) => setImmediate(resolve));
      if (kms.busy === 0) await clock.advance(50);
    }
    return end;
  })();
}

keyStoreSuite('gcp-kms (a fake Cloud KMS over HTTP)', { exportable: false }, async () => {
  const { clock, kms, open, close } = await under();
  const keys = await open().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    keys: { ...keys, generate: (id, type) => withTime(clock, kms, keys.generate(id, type)) },
    reopen: () => open(),
    other: () => open('two'),
    down: () => kms.down(),
    async up() {
      await kms.up();
      await clock.advance(10_000);
    },
    async steal(id) {
      for (const [name, key] of kms.keys) if (name.endsWith(`-${id}`)) key.state = 'DESTROY_SCHEDULED';
    },
    close,
  };
});

test('upkeep: keys in use are marked each 6 h, replaced ones go after 48 h, those of a silent server after two weeks', async () => {
  const { clock, kms, open, close } = await under();
  const keys = await open();
  const old = await keys.generate('a', 'ec-p256');
  const fresh = await keys.generate('a', 'ec-p256');
  const gone = await open('Server Gone!');
  await gone.generate('theirs', 'ec-p256');
  const foreign = await open('one', 'other.org');
  await foreign.generate('a', 'ec-p256');
  await gone.close?.();
  await foreign.close?.();
  const states = () => [...kms.keys.values()].map(({ state, labels }) => `${state} ${labels['mutual-active']}`);
  const [on, off] = ['ENABLED true', 'DESTROY_SCHEDULED false'];

  await passHours(clock, 47, kms.calls);
  await signs(old);
  assert.deepEqual(states(), [on, on, on, on]);
  await passHours(clock, 26, kms.calls);
  assert.deepEqual(states(), [off, on, on, on]);
  await passHours(clock, 14 * 24, kms.calls);
  assert.deepEqual(states(), [off, on, off, on]);
  const marked = [...kms.keys.values()].map(({ labels }) => clock.now() / 1000 - Number(labels['mutual-last-update']));
  assert.ok(marked[1]! <= 6 * 3600 + 1);
  await signs(fresh);
  await close();
});

test('an account that may not is told so at the start and in the middle', async () => {
  const { kms, open, close } = await under();
  const key = await (await open()).generate('a', 'ec-p256');
  await calm(kms.calls);
  kms.forbidden = true;
  await assert.rejects(open(), fault('keys/unavailable', /^the key store Google Cloud KMS refuses listing keys$/));
  await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('keys/unavailable', /refuses signing$/));
  await close();
});

test('a key ring that is not there is a sentence, and so is a missing package', async () => {
  const { options, ports, close } = await under();
  const owner = { trustDomain: 'example.org', server: 'one' };
  const nowhere = { ...options, keyRing: 'projects/p/locations/global/keyRings/none' };
  await assert.rejects(gcpKmsKeys(nowhere, owner, ports), fault('keys/unavailable', /refuses listing keys/));
  await assert.rejects(
    gcpKmsKeys(options, owner, keyPorts()),
    fault('config/invalid', /google-auth-library, which is not installed/),
  );
  await close();
});

test('a file key wrapped by Cloud KMS comes back', async () => {
  const { options, ports, close } = await under();
  const wrapper = await gcpKmsWrapper(options, 'seal', ports.load);
  const wrapped = await wrapper.wrap(Buffer.from('a file key'));
  assert.equal((await wrapper.unwrap(wrapped, 'x')).toString(), 'a file key');
  const other = await gcpKmsWrapper(options, 'other', ports.load);
  await assert.rejects(other.wrap(Buffer.alloc(32)), fault('keys/unavailable', /refuses to encrypt with "other"/));
  await close();
});
