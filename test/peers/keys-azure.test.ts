import assert from 'node:assert/strict';
import { it } from 'node:test';
import { pemEncode } from '../../src/crypto/pem.ts';
import { azureKeyVaultKeys, azureKeyVaultWrapper } from '../../src/keys/azure-key-vault.ts';
import type { LoadPackage } from '../../src/keys/load-package.ts';
import type { AzureKeyVaultOptions } from '../../src/keys/options.ts';
import { keyStoreSuite } from '../suites/key-store.ts';
import { testAuthority } from '../support/ca.ts';
import { drivenClock } from '../support/clock.ts';
import { fakeKeyVault } from '../support/fake-key-vault.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { openedStores } from '../support/key-stores.ts';
import { loadRealPackage } from './support/real-packages.ts';

const ca = testAuthority({ now: Date.now() });
const listener = ca.issue({ dnsNames: ['localhost'] });
const pem = (der: Buffer): string => pemEncode('CERTIFICATE', der);
const tls = { cert: listener.chain.map(pem).join(''), key: pemEncode('PRIVATE KEY', listener.key!.exportPkcs8()) };

async function under() {
  const clock = drivenClock(Date.now());
  const vault = await fakeKeyVault(tls);
  const opened = openedStores();
  const sdk = await loadRealPackage('@azure/keyvault-keys');
  // The real clients, told the roots of the test and that its vault is not below vault.azure.net.
  const forTest = { tlsOptions: { ca: pem(ca.der) }, disableChallengeResourceVerification: true };
  const load: LoadPackage = async (name) =>
    name === '@azure/identity'
      ? {
          DefaultAzureCredential: class {
            async getToken(): Promise<object> {
              return { token: vault.token, expiresOnTimestamp: Date.now() + 3_600_000 };
            }
          },
        }
      : {
          KeyClient: class extends sdk.KeyClient {
            constructor(url: string, credential: object, options: object) {
              super(url, credential, { ...options, ...forTest });
            }
          },
          CryptographyClient: class extends sdk.CryptographyClient {
            constructor(id: string, credential: object, options: object) {
              super(id, credential, { ...options, ...forTest });
            }
          },
        };
  const ports = { ...keyPorts({}, clock), load };
  const options: AzureKeyVaultOptions = { vaultUrl: vault.url, hsm: false };
  const open = (server = 'one') =>
    opened.keep(azureKeyVaultKeys(options, { trustDomain: 'example.org', server }, ports));
  const close = async () => {
    await opened.close();
    await vault.close();
  };
  return { clock, vault, ports, options, open, close };
}

keyStoreSuite('azure-key-vault (the real SDK, a fake Key Vault over HTTPS)', { exportable: false }, async () => {
  const { clock, vault, open, close } = await under();
  const keys = await open().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    keys,
    reopen: () => open(),
    other: () => open('two'),
    down: () => vault.down(),
    async up() {
      await vault.up();
      await clock.advance(10_000);
    },
    async steal(id) {
      for (const key of vault.keys.values()) if (key.tags['mutual-key-id'] === id) key.enabled = false;
    },
    close,
  };
});

it('the real Azure SDK: a file key is wrapped by an RSA key of the vault, and by no other', async (t) => {
  const { vault, ports, options, close } = await under();
  t.after(close);
  const sdk = await ports.load('@azure/keyvault-keys');
  const { DefaultAzureCredential } = await ports.load('@azure/identity');
  await new sdk.KeyClient(vault.url, new DefaultAzureCredential(), {}).createKey('seal', 'RSA', { keySize: 2048 });
  const wrapper = await azureKeyVaultWrapper(options, 'seal', ports.load);
  const wrapped = await wrapper.wrap(Buffer.from('a file key'));
  assert.equal((await wrapper.unwrap(wrapped, 'x')).toString(), 'a file key');
  const other = await azureKeyVaultWrapper(options, 'other', ports.load);
  await assert.rejects(other.wrap(Buffer.alloc(32)), fault('keys/unavailable', /refuses reading with "other"/));
});
