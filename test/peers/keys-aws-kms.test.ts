import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { awsKmsKeys, awsKmsWrapper } from '../../src/keys/aws-kms.ts';
import type { AwsKmsOptions } from '../../src/keys/options.ts';
import { systemRandom } from '../../src/run/random.ts';
import { keyStoreSuite, signs } from '../suites/key-store.ts';
import { drivenClock } from '../support/clock.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { openedStores } from '../support/key-stores.ts';
import { type Gate, gateTo } from './support/gate.ts';
import { startMoto } from './support/moto.ts';
import { makePlace } from './support/place.ts';
import { loadRealPackage } from './support/real-packages.ts';
import { until } from './support/until.ts';

const place = makePlace();
let port = 0;
before(async () => {
  port = await startMoto(place);
});
after(() => place.close());

// biome-ignore lint/suspicious/noExplicitAny: the SDK.
async function client(): Promise<{ sdk: any; kms: any }> {
  const sdk = await loadRealPackage('@aws-sdk/client-kms');
  return { sdk, kms: new sdk.KMSClient({ region: 'eu-west-1', endpoint: `http://127.0.0.1:${port}` }) };
}

function under(gate: Gate, trustDomain = `${systemRandom.uuid()}.org`) {
  const clock = drivenClock(Date.now());
  const opened = openedStores();
  const ports = { ...keyPorts({}, clock), load: loadRealPackage };
  const options: AwsKmsOptions = {
    region: 'eu-west-1',
    endpoint: `http://127.0.0.1:${gate.port}`,
    tags: ['team=identity'],
  };
  const open = (server = 'one') => opened.keep(awsKmsKeys(options, { trustDomain, server }, ports));
  return { clock, opened, open, ports, options };
}

// moto hashes a digest once more, and signs with keys that are disabled or to be deleted: of that it proves nothing.
const traits = { exportable: false, data: [1, 4096] } as const;
keyStoreSuite('aws-kms (the real SDK, moto for KMS)', traits, async () => {
  const gate = await gateTo(port);
  const { clock, opened, open } = under(gate);
  return {
    keys: await open(),
    reopen: () => open(),
    other: () => open('two'),
    down: () => gate.shut(),
    async up() {
      await gate.open();
      await clock.advance(10_000);
    },
    async close() {
      await opened.close();
      await gate.shut().catch(() => {});
    },
  };
});

describe('the real AWS SDK', () => {
  it('wraps a file key by a symmetric key of KMS, and nothing without one', async () => {
    const gate = await gateTo(port);
    const { options, ports } = under(gate);
    const { sdk, kms } = await client();
    const { KeyMetadata } = await kms.send(new sdk.CreateKeyCommand({}));
    const wrapper = await awsKmsWrapper(options, KeyMetadata.KeyId, ports.load);
    const wrapped = await wrapper.wrap(Buffer.from('a file key'));
    assert.equal((await wrapper.unwrap(wrapped, 'x')).toString(), 'a file key');
    const none = await awsKmsWrapper(options, 'alias/none', ports.load);
    await assert.rejects(none.wrap(Buffer.alloc(32)), fault('keys/unavailable', /refuses Encrypt with "alias\/none"/));
    await gate.shut();
  });

  it('leaves keys and aliases of others alone when it disposes of what is of no more use', async () => {
    const gate = await gateTo(port);
    const { sdk, kms } = await client();
    const { KeyMetadata } = await kms.send(
      new sdk.CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }),
    );
    const { clock, opened, open } = under(gate);
    const keys = await open();
    const old = await keys.generate('a', 'ec-p256');
    await keys.close?.();
    const states = async (): Promise<string[]> => {
      const { Keys } = await kms.send(new sdk.ListKeysCommand({ Limit: 1000 }));
      const found: string[] = [];
      for (const { KeyId } of Keys) {
        const { PublicKey } = await kms.send(new sdk.GetPublicKeyCommand({ KeyId })).catch(() => ({}));
        if (PublicKey === undefined || !Buffer.from(PublicKey).equals(old.publicKey)) continue;
        found.push((await kms.send(new sdk.DescribeKeyCommand({ KeyId }))).KeyMetadata.KeyState);
      }
      return found;
    };
    const again = await open();
    const fresh = await again.generate('a', 'ec-p256');
    await again.close?.();
    assert.deepEqual(await states(), ['Enabled']);
    // The server comes back three days later.
    clock.jump(3 * 24 * 3_600_000);
    const later = await open();
    await until('the replaced key is to be deleted', 60_000, async () => (await states())[0] === 'PendingDeletion');
    assert.deepEqual((await later.get('a'))?.publicKey, fresh.publicKey);
    await signs((await later.get('a'))!);
    const described = await kms.send(new sdk.DescribeKeyCommand({ KeyId: KeyMetadata.KeyId }));
    assert.equal(described.KeyMetadata.KeyState, 'Enabled');
    await opened.close();
    await gate.shut();
  });
});
