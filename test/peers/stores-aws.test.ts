/** AWS Secrets Manager by the real SDK, with moto in the place of AWS. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { awsSecretsManager } from '../../agent/stores/aws-secrets.ts';
import { readSettings } from '../../agent/stores/settings.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { secrets, svidStoreSuite } from '../suites/svid-store.ts';
import { fault } from '../support/fault.ts';
import { gateTo } from './support/gate.ts';
import { startMoto } from './support/moto.ts';
import { makePlace } from './support/place.ts';
import { loadRealPackage } from './support/real-packages.ts';

const settings = ['secretname', 'arn', 'kmskeyid'];
const region = 'eu-west-1';
const { signal } = new AbortController();
const place = makePlace();
let port = 0;
before(async () => {
  port = await startMoto(place);
});
after(() => place.close());

/** What a reader of secrets does, with the SDK. */
async function reader() {
  const sdk = await loadRealPackage('@aws-sdk/client-secrets-manager');
  const client = new sdk.SecretsManagerClient({ region, endpoint: `http://127.0.0.1:${port}` });
  // biome-ignore lint/suspicious/noExplicitAny: the SDK's answers.
  const ask = (command: string, input: object): Promise<any> => client.send(new sdk[`${command}Command`](input));
  return { ask, close: () => client.destroy() };
}
const nameOf = (selectors: readonly string[]): string => selectors[0]!.replace('aws_secretsmanager:secretname:', '');

svidStoreSuite('aws_secretsmanager (the real SDK, moto for AWS)', async () => {
  const gate = await gateTo(port);
  const store = await awsSecretsManager({ region, endpoint: `http://127.0.0.1:${gate.port}` }, loadRealPackage);
  const { ask, close } = await reader();
  let count = 0;
  return {
    store,
    settings,
    selectors: () => [`aws_secretsmanager:secretname:web/${count++}`],
    async read(selectors) {
      const found = await ask('GetSecretValue', { SecretId: nameOf(selectors) }).catch((error: Error) => {
        // Moto, as AWS, answers so for one that is marked for deletion.
        if (/ResourceNotFound|InvalidRequest/.test(error.name)) return undefined;
        throw error;
      });
      if (found === undefined) return undefined;
      const document = JSON.parse(Buffer.from(found.SecretBinary).toString('utf8'));
      const { spiffeID, x509SVID: chain, x509SVIDKey: key, bundle, federatedBundles: federated, ...more } = document;
      assert.deepEqual([spiffeID.startsWith('spiffe://example.org/'), more], [true, {}]);
      return { chain, key, bundle, federated };
    },
    occupy: (selectors) => ask('CreateSecret', { Name: nameOf(selectors), SecretString: 'mine' }),
    isOccupied: async (selectors) =>
      (await ask('GetSecretValue', { SecretId: nameOf(selectors) })).SecretString === 'mine',
    down: () => gate.shut(),
    up: () => gate.open(),
    async close() {
      store.close();
      close();
      await gate.shut();
    },
  };
});

test('the tag says whose it is, the key encrypts it, and an ARN is as good as a name once it is there', async () => {
  const store = await awsSecretsManager({ region, endpoint: `http://127.0.0.1:${port}` }, loadRealPackage);
  const { ask, close } = await reader();
  const at = (...texts: string[]) =>
    store.place(
      readSettings(
        texts.map((text) => parseSelector(`aws_secretsmanager:${text}`)),
        settings,
      ),
    );
  const make = secrets();
  try {
    await store.put(at('secretname:named', 'kmskeyid:alias/web'), make(), signal);
    const made = await ask('DescribeSecret', { SecretId: 'named' });
    assert.deepEqual(made.Tags, [{ Key: 'spire-svid', Value: 'true' }]);
    assert.equal(made.KmsKeyId, 'alias/web');
    await store.put(at(`arn:${made.ARN}`), make(), signal);
    const versions = await ask('ListSecretVersionIds', { SecretId: 'named' });
    assert.equal(versions.Versions.length, 2);
    await store.remove(at(`arn:${made.ARN}`), signal);
    const removed = await ask('DescribeSecret', { SecretId: 'named' });
    const days = (removed.DeletedDate.getTime() - Date.now()) / 86_400_000;
    assert.ok(days > 6 && days < 8, `deleted in ${days} days`);
    const nowhere = at('arn:arn:aws:secretsmanager:eu-west-1:1:secret:none-abcdef');
    await assert.rejects(
      store.put(nowhere, make(), signal),
      fault('input/invalid', /with a secretname one would be made/),
    );
    assert.throws(() => at('kmskeyid:x'), fault('input/invalid', /does not say the secretname/));
  } finally {
    store.close();
    close();
  }
});
