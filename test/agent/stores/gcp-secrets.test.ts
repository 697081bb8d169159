/** Google Secret Manager against a stand-in, since the real one cannot be had. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { gcpSecretManager } from '../../../agent/stores/gcp-secrets.ts';
import { readSettings } from '../../../agent/stores/settings.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { secrets, svidStoreSuite } from '../../suites/svid-store.ts';
import { fakeGcpSecretManager } from '../../support/fake-gcp-secrets.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';

const settings = ['name', 'projectid', 'role', 'serviceaccount', 'regions'];
const domain = parseTrustDomain('example.org');
const owner = createHash('sha1').update('example.org').digest('hex');
const { signal } = new AbortController();

async function opened() {
  const fake = await fakeGcpSecretManager();
  const { load } = keyPorts({ 'google-auth-library': fake.package });
  return { fake, store: await gcpSecretManager({ endpoint: fake.endpoint }, domain, load) };
}
const nameOf = (selectors: readonly string[]): string => `projects/p/secrets/${selectors[0]!.split(':')[2]}`;

svidStoreSuite('gcp_secretmanager (a stand-in for Google)', async () => {
  const { fake, store } = await opened();
  let count = 0;
  return {
    store,
    settings,
    selectors: () => [`gcp_secretmanager:name:web-${count++}`, 'gcp_secretmanager:projectid:p'],
    async read(selectors) {
      const text = fake.secrets.get(nameOf(selectors))?.versions.at(-1);
      if (text === undefined) return undefined;
      const {
        spiffeID,
        x509SVID: chain,
        x509SVIDKey: key,
        bundle,
        federatedBundles: federated,
        ...more
      } = JSON.parse(text);
      assert.deepEqual([spiffeID.startsWith('spiffe://example.org/'), more], [true, {}]);
      return { chain, key, bundle, federated };
    },
    async occupy(selectors) {
      const labels = { 'spire-svid': 'another-trust-domain' };
      fake.secrets.set(nameOf(selectors), { labels, replication: {}, bindings: [], etag: 'e', versions: ['mine'] });
    },
    isOccupied: async (selectors) => fake.secrets.get(nameOf(selectors))?.versions.join() === 'mine',
    down: fake.down,
    up: fake.up,
    async close() {
      store.close();
      await fake.down();
    },
  };
});

async function one(t: TestContext) {
  const { fake, store } = await opened();
  t.after(async () => {
    store.close();
    await fake.down();
  });
  const place = (...more: string[]) => {
    const texts = ['name:web', 'projectid:p', ...more];
    return store.place(
      readSettings(
        texts.map((text) => parseSelector(`gcp_secretmanager:${text}`)),
        settings,
      ),
    );
  };
  return { fake, store, place, secret: () => fake.secrets.get('projects/p/secrets/web')! };
}

test('a secret bears the hash of the trust domain, lies where it is to lie, and its reader may read it', async (t) => {
  const { store, place, secret, fake } = await one(t);
  const make = secrets();
  const role = 'roles/secretmanager.secretAccessor';
  const where = place('regions:europe-west1,europe-west4', `role:${role}`, 'serviceaccount:web@p.iam');
  await store.put(where, make(), signal);
  assert.deepEqual(secret().labels, { 'spire-svid': owner });
  const replicas = [{ location: 'europe-west1' }, { location: 'europe-west4' }];
  assert.deepEqual(secret().replication, { userManaged: { replicas } });
  assert.deepEqual(secret().bindings, [{ role, members: ['serviceAccount:web@p.iam'] }]);
  await store.put(where, make(), signal);
  assert.equal(fake.calls.filter((call) => call.endsWith(':setIamPolicy')).length, 1, 'who may read it is set once');
  secret().bindings = [];
  await store.put(where, make(), signal);
  assert.equal(secret().bindings.length, 1, 'and again where it is not so');
});

test('of the versions the last two stay', async (t) => {
  const { store, place, secret } = await one(t);
  const make = secrets();
  for (let turn = 0; turn < 5; turn++) await store.put(place(), make(), signal);
  assert.deepEqual(
    secret().versions.map((version) => version !== undefined),
    [false, false, false, true, true],
  );
  assert.deepEqual(secret().replication, { automatic: {} });
});

test('a refusal of Google names what was refused; what Google said is for the log', async (t) => {
  const { store, place, fake } = await one(t);
  fake.forbidden = true;
  await assert.rejects(store.put(place(), secrets()(), signal), (error: Error & { detail?: string }) => {
    assert.match(error.detail!, /PERMISSION_DENIED/);
    return fault('store/unavailable', /Google Secret Manager refuses reading a secret/)(error);
  });
});

test('settings that make no sense are refused', async (t) => {
  const { place } = await one(t);
  assert.throws(() => place('role:roles/x'), fault('input/invalid', /only one/));
  assert.throws(() => place('serviceaccount:a@b'), fault('input/invalid', /only one/));
  assert.throws(() => place('regions:,'), fault('input/invalid', /one region or more/));
});
