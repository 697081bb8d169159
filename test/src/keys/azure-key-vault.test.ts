import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { azureKeyVaultKeys, azureKeyVaultWrapper } from '../../../src/keys/azure-key-vault.ts';
import type { AzureKeyVaultOptions } from '../../../src/keys/options.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { drivenClock } from '../../support/clock.ts';
import { azureError, fakeAzure } from '../../support/fake-azure.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';
import { openedStores, passHours } from '../../support/key-stores.ts';

function under(more: Partial<AzureKeyVaultOptions> = {}) {
  const clock = drivenClock();
  const azure = fakeAzure(clock);
  const opened = openedStores();
  const ports = keyPorts(azure.packages, clock);
  const options: AzureKeyVaultOptions = { vaultUrl: azure.vaultUrl, hsm: false, ...more };
  const open = (server = 'one', trustDomain = 'example.org') =>
    opened.keep(azureKeyVaultKeys(options, { trustDomain, server }, ports));
  return { clock, azure, opened, ports, options, open };
}

for (const hsm of [false, true]) {
  keyStoreSuite(`azure-key-vault${hsm ? ' with HSM keys' : ''} (a fake SDK)`, { exportable: false }, async () => {
    const { clock, azure, opened, open } = under({ hsm });
    return {
      keys: await open(),
      reopen: () => open(),
      other: () => open('two'),
      async down() {
        azure.failure = Object.assign(new Error('connect ECONNREFUSED'), { name: 'RestError', code: 'ECONNREFUSED' });
      },
      async up() {
        azure.failure = undefined;
        await clock.advance(10_000);
      },
      async steal(id) {
        for (const key of azure.keys.values()) if (key.tags['mutual-key-id'] === id) key.enabled = false;
      },
      close: opened.close,
    };
  });
}

test('upkeep: keys in use are marked each 6 h, replaced ones go after 48 h, those of a silent server after two weeks', async () => {
  const { clock, azure, opened, open } = under();
  const keys = await open();
  await keys.generate('a', 'ec-p256');
  const fresh = await keys.generate('a', 'ec-p256');
  const gone = await open('gone');
  await gone.generate('theirs', 'ec-p256');
  const foreign = await open('one', 'other.org');
  await foreign.generate('a', 'ec-p256');
  await gone.close?.();
  await foreign.close?.();
  azure.keys.set('by-hand', { ...[...azure.keys.values()][0]!, name: 'by-hand', tags: {} });
  const calls: unknown[] = [];
  await passHours(clock, 47, calls);
  assert.equal(azure.keys.size, 5);
  await passHours(clock, 26, calls);
  assert.equal(azure.keys.size, 4);
  await passHours(clock, 14 * 24, calls);
  assert.deepEqual(
    [...azure.keys.values()].map(({ tags }) => tags['mutual-key-id'] ?? 'by hand'),
    ['a', 'a', 'by hand'],
  );
  const used = Number([...azure.keys.values()][0]!.tags['mutual-last-update']) * 1000;
  assert.ok(clock.now() - used <= 6 * 3_600_000 + 1000);
  await signs(fresh);
  await opened.close();
});

test("credentials: the machine's own, or an application with its secret from a file", async () => {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  try {
    const clientSecretFile = join(dir, 'secret');
    await writeFile(clientSecretFile, 'open sesame\n', { mode: 0o600 });
    const machine = under({ clientId: 'identity' });
    await machine.open();
    await machine.opened.close();
    assert.deepEqual(machine.azure.credentials, [
      'default {"managedIdentityClientId":"identity","workloadIdentityClientId":"identity"}',
    ]);
    const application = under({ tenantId: 'tenant', clientId: 'app', clientSecretFile });
    await application.open();
    await application.opened.close();
    assert.deepEqual(application.azure.credentials, ['secret tenant app open sesame']);
    await assert.rejects(under({ clientSecretFile }).open(), fault('config/invalid', /without its tenant or client/));
  } finally {
    await rm(dir, { recursive: true });
  }
});

for (const [error, message] of [
  [azureError(403, 'Forbidden'), /refuses signing$/],
  [Object.assign(new Error('no identity'), { name: 'CredentialUnavailableError' }), /refuses the credentials$/],
  [azureError(429, 'Throttled'), /failed$/],
  [azureError(503, 'Busy'), /failed$/],
  [Object.assign(new Error('ENOTFOUND'), { code: 'ENOTFOUND' }), /cannot be reached$/],
] as const) {
  test(`${error.name} ${error.message} becomes a sentence`, async () => {
    const { azure, opened, open } = under();
    const key = await (await open()).generate('a', 'ec-p256');
    azure.failure = error;
    await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('keys/unavailable', message));
    await opened.close();
  });
}

test('a file key wrapped by the vault comes back; a file that names another vault is not asked about there', async () => {
  const { options, ports } = under();
  const wrapper = await azureKeyVaultWrapper(options, 'seal', ports.load);
  const wrapped = await wrapper.wrap(Buffer.from('a file key'));
  assert.equal((await wrapper.unwrap(wrapped, 'x')).toString(), 'a file key');
  const elsewhere = { ...wrapped, name: 'https://evil.example/keys/seal/0123' };
  await assert.rejects(wrapper.unwrap(elsewhere, 'keys.json'), fault('keys/sealed', /sealed by a key that is not of/));
});

test('without its packages it says what to install', async () => {
  const { options } = under();
  const nothing = azureKeyVaultKeys(options, { trustDomain: 'example.org', server: 'one' }, keyPorts());
  await assert.rejects(
    nothing,
    fault('config/invalid', /needs the package @azure\/keyvault-keys, which is not installed/),
  );
});
