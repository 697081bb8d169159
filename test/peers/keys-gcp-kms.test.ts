import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, it } from 'node:test';
import { gcpKmsKeys } from '../../src/keys/gcp-kms.ts';
import type { GcpKmsOptions } from '../../src/keys/options.ts';
import { systemClock } from '../../src/run/clock.ts';
import { keyStoreSuite } from '../suites/key-store.ts';
import { fakeGcpKms } from '../support/fake-gcp-kms.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { openedStores } from '../support/key-stores.ts';
import { makePlace } from './support/place.ts';
import { loadRealPackage } from './support/real-packages.ts';
import { until } from './support/until.ts';

const place = makePlace();
after(() => place.close());

async function under() {
  const kms = await fakeGcpKms();
  const opened = openedStores();
  const ports = { ...keyPorts(), clock: systemClock, load: loadRealPackage };
  const credentialsFile = place.path(`account-${kms.endpoint.split(':').at(-1)}.json`);
  const token = place.path('svid.jwt');
  writeFileSync(token, 'the.jwt.svid');
  writeFileSync(credentialsFile, JSON.stringify(kms.federation(token)), { mode: 0o600 });
  const options: GcpKmsOptions = {
    keyRing: kms.keyRing,
    endpoint: kms.endpoint,
    protection: 'software',
    credentialsFile,
  };
  const open = (server = 'one', more: Partial<GcpKmsOptions> = {}) =>
    opened.keep(gcpKmsKeys({ ...options, ...more }, { trustDomain: 'example.org', server }, ports));
  const close = async () => {
    await opened.close();
    await kms.close();
  };
  return { kms, open, close };
}

keyStoreSuite('gcp-kms (the real auth library, a fake Cloud KMS over HTTP)', { exportable: false }, async () => {
  const { kms, open, close } = await under();
  const keys = await open().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    keys,
    reopen: () => open(),
    other: () => open('two'),
    down: () => kms.down(),
    async up() {
      await kms.up();
      // Its backoff runs on the real clock.
      await until('the store is asked again', 60_000, () =>
        keys.check!().then(
          () => true,
          () => false,
        ),
      );
    },
    async steal(id) {
      for (const [name, key] of kms.keys) if (name.endsWith(`-${id}`)) key.state = 'DISABLED';
    },
    close,
  };
});

it('the real auth library: a token that is not taken, and credentials that are none, are sentences', async () => {
  const { kms, open, close } = await under();
  const [credentialsFile, token] = [place.path('other.json'), place.path('other.jwt')];
  writeFileSync(token, 'another.jwt.svid');
  writeFileSync(credentialsFile, JSON.stringify(kms.federation(token)), { mode: 0o600 });
  await assert.rejects(open('one', { credentialsFile }), fault('keys/unavailable', /refuses the credentials$/));
  await assert.rejects(open('one', { credentialsFile: '/nowhere' }), fault('config/invalid', /cannot be read/));
  writeFileSync(credentialsFile, '{"type":"something"}');
  await assert.rejects(open('one', { credentialsFile }), fault('config/invalid', /neither of a service account nor/));
  await close();
});
