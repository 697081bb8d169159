import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openKeys } from '../../../src/keys/open.ts';
import type { KeysOptions } from '../../../src/keys/options.ts';
import { signs } from '../../suites/key-store.ts';
import { drivenClock } from '../../support/clock.ts';
import { fakeAwsKms } from '../../support/fake-aws-kms.ts';
import { fakeAzure } from '../../support/fake-azure.ts';
import { fakeToken } from '../../support/fake-cryptoki.ts';
import { fakeGcpKms } from '../../support/fake-gcp-kms.ts';
import { fakeTransit } from '../../support/fake-transit.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';

async function under(t: TestContext) {
  const dataDir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const clock = drivenClock();
  const [vault, gcp] = [await fakeTransit({ clock }), await fakeGcpKms()];
  const azure = fakeAzure(clock);
  const packages = {
    ...azure.packages,
    '@aws-sdk/client-kms': fakeAwsKms(clock).package,
    'google-auth-library': gcp.package,
    pkcs11js: fakeToken().package,
  };
  const sections = {
    vault: {
      address: vault.address,
      transitPath: 'transit',
      login: 'approle',
      roleId: 'the-role',
      secretId: 'the-secret',
    },
    awsKms: { region: 'eu-test-1', tags: [] },
    gcpKms: { keyRing: gcp.keyRing, endpoint: gcp.endpoint, protection: 'software' },
    azureKeyVault: { vaultUrl: azure.vaultUrl, hsm: false },
    pkcs11: { library: '/fake/library.so', token: 'mutual', pin: '1234' },
  } as const;
  t.after(async () => {
    await vault.close();
    await gcp.close();
    await rm(dataDir, { recursive: true });
  });
  const open = (options: KeysOptions) =>
    openKeys(options, { trustDomain: 'example.org', server: 'one', dataDir }, keyPorts(packages, clock));
  return { dataDir, sections, open, path: join(dataDir, 'keys.json') };
}

for (const store of ['memory', 'disk', 'pkcs11', 'vault', 'aws-kms', 'gcp-kms', 'azure-key-vault'] as const) {
  test(`${store} is opened by its name and signs`, async (t) => {
    const { sections, open } = await under(t);
    const keys = await open({ store, ...sections });
    await signs(await keys.generate('a', 'ec-p256'));
    await keys.close?.();
  });
}

for (const by of ['vault', 'aws-kms', 'gcp-kms', 'azure-key-vault'] as const) {
  test(`a key file sealed by ${by} opens with its help and not without`, async (t) => {
    const { sections, open, path } = await under(t);
    const wrappingKey = by === 'aws-kms' ? 'alias/seal' : 'seal';
    const options: KeysOptions = { store: 'disk', seal: { by, wrappingKey }, ...sections };
    const key = await (await open(options)).generate('a', 'ec-p256');
    assert.ok(!(await readFile(path)).includes(key.exportPkcs8!().toString('base64').slice(0, 24)));
    await signs((await (await open(options)).get('a'))!);
    await assert.rejects(open({ store: 'disk' }), fault('keys/sealed', /nothing was given to open it/));
    const passphrase = { by: 'passphrase', passphrase: 'x' } as const;
    await assert.rejects(
      open({ store: 'disk', seal: passphrase }),
      fault('keys/sealed', new RegExp(`is sealed by ${by}, not by passphrase`)),
    );
  });
}

test('a passphrase comes from a file, whose last newline does not count', async (t) => {
  const { open, dataDir } = await under(t);
  const passphraseFile = join(dataDir, 'passphrase');
  await writeFile(passphraseFile, 'correct horse\n', { mode: 0o600 });
  const fromFile: KeysOptions = { store: 'disk', seal: { by: 'passphrase', passphraseFile } };
  await (await open(fromFile)).generate('a', 'ec-p256');
  const given: KeysOptions = { store: 'disk', seal: { by: 'passphrase', passphrase: 'correct horse' } };
  assert.equal((await (await open(given)).list()).length, 1);
  await chmod(passphraseFile, 0o644);
  await assert.rejects(open(fromFile), fault('config/invalid', /passphrase, ".*", may be used by everybody/));
  await chmod(passphraseFile, 0o600);
  await writeFile(passphraseFile, '\n');
  await assert.rejects(open(fromFile), fault('config/invalid', /is empty/));
});

for (const [what, options, message] of [
  ['a store without its section', { store: 'vault' }, /keys\.vault is not given/],
  [
    'a seal without its section',
    { store: 'disk', seal: { by: 'aws-kms', wrappingKey: 'x' } },
    /keys\.awsKms is not given/,
  ],
  [
    'a seal without its key',
    { store: 'disk', seal: { by: 'vault' }, vault: {} },
    /keys\.seal\.by vault is given without a key/,
  ],
  ['a seal without its passphrase', { store: 'disk', seal: { by: 'passphrase' } }, /no passphrase is given/],
] as const) {
  test(`${what} is a sentence`, async (t) => {
    const { open } = await under(t);
    await assert.rejects(open(options as KeysOptions), fault('config/invalid', message));
  });
}
