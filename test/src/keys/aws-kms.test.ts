import assert from 'node:assert/strict';
import { test } from 'node:test';
import { awsKmsKeys, awsKmsWrapper } from '../../../src/keys/aws-kms.ts';
import type { AwsKmsOptions } from '../../../src/keys/options.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { drivenClock } from '../../support/clock.ts';
import { awsError, fakeAwsKms } from '../../support/fake-aws-kms.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';
import { calm, openedStores, passHours } from '../../support/key-stores.ts';

const options: AwsKmsOptions = { region: 'eu-test-1', tags: ['team=identity'] };

function under() {
  const clock = drivenClock();
  const kms = fakeAwsKms(clock);
  const opened = openedStores();
  const ports = keyPorts({ '@aws-sdk/client-kms': kms.package }, clock);
  const open = (server = 'one', trustDomain = 'example.org') =>
    opened.keep(awsKmsKeys(options, { trustDomain, server }, ports));
  return { clock, kms, opened, ports, open };
}

keyStoreSuite('aws-kms (a fake SDK)', { exportable: false }, async () => {
  const { clock, kms, opened, open } = under();
  return {
    keys: await open(),
    reopen: () => open(),
    other: () => open('two'),
    async down() {
      kms.failure = Object.assign(new Error('connect ECONNREFUSED'), { name: 'Error' });
    },
    async up() {
      kms.failure = undefined;
      await clock.advance(10_000);
    },
    async steal(id) {
      for (const [name, { target }] of kms.aliases)
        if (name.endsWith(`/${id}`)) kms.keys.get(target)!.state = 'PendingDeletion';
    },
    close: opened.close,
  };
});

test('the alias, the tags and the description of a key say whose it is', async () => {
  const { kms, opened, open } = under();
  await (await open('one')).generate('x509-00ff', 'ec-p256');
  assert.deepEqual([...kms.aliases.keys()], ['alias/MUTUAL_SERVER/example_2eorg/one/x509-00ff']);
  assert.deepEqual([...kms.keys.values()][0]!.tags, [
    { TagKey: 'mutual-server-td', TagValue: 'example.org' },
    { TagKey: 'mutual-server-id', TagValue: 'one' },
    { TagKey: 'mutual-key-id', TagValue: 'x509-00ff' },
    { TagKey: 'team', TagValue: 'identity' },
  ]);
  await opened.close();
});

test('upkeep: keys in use are marked each 6 h, replaced ones go after 48 h, those of a silent server after two weeks', async () => {
  const { clock, kms, opened, open, ports } = under();
  const keys = await open();
  const old = await keys.generate('a', 'ec-p256');
  const fresh = await keys.generate('a', 'ec-p256');
  const gone = await open('gone');
  await gone.generate('theirs', 'ec-p256');
  const foreign = await open('one', 'other.org');
  await foreign.generate('a', 'ec-p256');
  await gone.close?.();
  await foreign.close?.();
  kms.keys.set('somebody', { ...[...kms.keys.values()][0]!, id: 'somebody', tags: [] });
  const states = () => [...kms.keys.values()].map(({ state }) => state);
  const aliasAge = () => clock.now() - kms.aliases.get('alias/MUTUAL_SERVER/example_2eorg/one/a')!.updated;

  await passHours(clock, 5, kms.calls);
  assert.equal(aliasAge(), 5 * 3_600_000);
  await passHours(clock, 1, kms.calls);
  assert.ok(aliasAge() < 3_600_000);

  await passHours(clock, 41, kms.calls);
  await signs(old);
  assert.deepEqual(states(), ['Enabled', 'Enabled', 'Enabled', 'Enabled', 'Enabled']);
  await passHours(clock, 26, kms.calls);
  assert.deepEqual(states(), ['PendingDeletion', 'Enabled', 'Enabled', 'Enabled', 'Enabled']);
  await assert.rejects(async () => old.sign(Buffer.from('x'), 'der'), fault('keys/lost'));

  await passHours(clock, 14 * 24, kms.calls);
  // The other trust domain's server is as silent, and none of our business.
  assert.deepEqual(states(), ['PendingDeletion', 'Enabled', 'PendingDeletion', 'Enabled', 'Enabled']);
  assert.deepEqual([...kms.aliases.keys()].length, 2);
  await signs(fresh);
  assert.deepEqual(
    ports.events.filter(({ event }) => /no more use/.test(event)).map(({ server, why }) => `${server} ${why}`),
    ['one replaced', 'gone abandoned'],
  );
  await opened.close();
});

test('upkeep that fails is put off and done later; the keys sign meanwhile', async () => {
  const { clock, kms, opened, open, ports } = under();
  const key = await (await open()).generate('a', 'ec-p256');
  await calm(kms.calls);
  kms.failure = awsError('ThrottlingException');
  await passHours(clock, 6, kms.calls);
  kms.failure = undefined;
  await clock.advance(10_000);
  await signs(key);
  await passHours(clock, 1, kms.calls);
  assert.ok(ports.events.some(({ event }) => event === 'upkeep of keys put off'));
  assert.ok(clock.now() - [...kms.aliases.values()][0]!.updated < 2 * 3_600_000);
  await opened.close();
});

for (const [error, message] of [
  [awsError('AccessDeniedException'), /^the key store AWS KMS refuses signing$/],
  [Object.assign(new Error('none'), { name: 'CredentialsProviderError' }), /refuses the credentials$/],
  [awsError('ExpiredTokenException'), /refuses the credentials$/],
  [awsError('InternalFailure', 500), /failed$/],
  [awsError('ThrottlingException'), /failed$/],
  [new Error('getaddrinfo ENOTFOUND'), /cannot be reached$/],
] as const) {
  test(`${error.name} at ${error.message} becomes a sentence, with the answer for the operator alone`, async () => {
    const { kms, opened, open } = under();
    const key = await (await open()).generate('a', 'ec-p256');
    kms.failure = error;
    await assert.rejects(
      async () => key.sign(Buffer.from('x'), 'der'),
      (thrown: Error & { detail?: string }) => {
        assert.ok(thrown.detail?.includes(error.message));
        return fault('keys/unavailable', message)(thrown);
      },
    );
    await opened.close();
  });
}

test('without its package it says what to install', async () => {
  const nothing = awsKmsKeys(options, { trustDomain: 'example.org', server: 'one' }, keyPorts());
  await assert.rejects(nothing, (error: Error & { hint?: string }) => {
    assert.equal(error.hint, 'Run: npm install @aws-sdk/client-kms');
    return fault(
      'config/invalid',
      /keys\.store aws-kms needs the package @aws-sdk\/client-kms, which is not installed/,
    )(error);
  });
});

test('a file key wrapped by KMS comes back, and by another key it does not', async () => {
  const { ports } = under();
  const wrapper = await awsKmsWrapper(options, 'alias/seal', ports.load);
  const wrapped = await wrapper.wrap(Buffer.from('a file key'));
  assert.ok(!JSON.stringify(wrapped).includes('a file key'));
  assert.equal((await wrapper.unwrap(wrapped, 'x')).toString(), 'a file key');
  const other = await awsKmsWrapper(options, 'alias/other', ports.load);
  await assert.rejects(other.wrap(Buffer.alloc(32)), fault('keys/unavailable', /refuses Encrypt with "alias\/other"/));
});
