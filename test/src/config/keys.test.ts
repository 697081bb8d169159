import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentProgram, agentTable } from '../../../agent/config.ts';
import { readServerOptions, serverTable } from '../../../server/config.ts';
import { explain, rowsWithFlag } from '../../../src/config/describe.ts';
import { inspectOptions } from '../../../src/config/read.ts';
import { rowsOf } from '../../../src/config.ts';
import { fault } from '../../support/fault.ts';

const least = { trustDomain: 'example.org' };
const read = (flags: object, env: Record<string, string> = {}, file?: string) =>
  readServerOptions({
    flags: { ...least, ...flags },
    env,
    ...(file !== undefined && { file: { path: 'server.yaml', text: file } }),
  });

test('secrets of key stores come from their variables alone: no flag, no file, and explain does not show them', async () => {
  for (const table of [serverTable, agentTable]) {
    const secrets = rowsOf(table).filter(({ path, option }) => path.startsWith('keys.') && option.secret);
    assert.ok(secrets.length >= 3);
    for (const { flag, path } of secrets) assert.equal(flag, '', path);
    assert.ok(!rowsWithFlag(table).some(({ path }) => secrets.some((secret) => secret.path === path)));
  }
  const reading = await read({}, { MUTUAL_KEYS_SEAL_PASSPHRASE: 'correct horse' });
  assert.deepEqual(reading.options.keys, {
    store: 'disk',
    shareJwt: false,
    seal: { by: 'passphrase', passphrase: 'correct horse' },
  });
  assert.ok(!JSON.stringify(explain(serverTable, reading)).includes('correct horse'));
  await assert.rejects(read({}, {}, 'keys: {seal: {passphrase: correct horse}}\n'), (error: Error) => {
    assert.ok(!error.message.includes('correct horse'));
    return fault(
      'config/invalid',
      /keys\.seal\.passphrase: is not taken from a file; set MUTUAL_KEYS_SEAL_PASSPHRASE/,
    )(error);
  });
  // A flag of that name is none: it is left to the command line, which refuses it.
  assert.equal((await read({ keysSealPassphrase: 'correct horse' })).options.keys.seal, undefined);
});

test('a whole section is read from a file', async () => {
  const { options } = await read(
    {},
    {},
    `
keys:
  store: vault
  vault:
    address: https://vault.example.org:8200
    namespace: team
    login: kubernetes
    role: mutual
`,
  );
  assert.deepEqual(options.keys, {
    store: 'vault',
    shareJwt: false,
    vault: {
      address: 'https://vault.example.org:8200',
      namespace: 'team',
      login: 'kubernetes',
      role: 'mutual',
      transitPath: 'transit',
    },
  });
});

for (const [what, flags, message] of [
  ['a store that is not known', { keysStore: 'valut' }, /did you mean "vault"\?/],
  [
    'a store without its section',
    { keysStore: 'aws-kms' },
    /keys-store: is aws-kms, and nothing below keys\.awsKms says where that is/,
  ],
  [
    'Vault over plain HTTP',
    { keysVaultAddress: 'http://vault.example.org' },
    /is not an https URL \(http is taken for this machine alone\)/,
  ],
  ['Vault with a token in its address', { keysVaultAddress: 'https://a:b@vault' }, /has a user name/],
  ['a mount that climbs', { keysVaultAddress: 'https://v', keysVaultTransitPath: '../sys' }, /is not a path in Vault/],
  ['a key ring that is none', { keysGcpKmsKeyRing: 'ring' }, /is not a key ring, such as projects/],
  ['a tag that is none', { keysAwsKmsRegion: 'x', keysAwsKmsTags: ['team'] }, /is not NAME=VALUE/],
  [
    'a seal without its passphrase',
    { keysSealBy: 'passphrase' },
    /the passphrase is needed; give a file, or MUTUAL_KEYS_SEAL_PASSPHRASE/,
  ],
  [
    'a seal without its key',
    { keysSealBy: 'vault', keysVaultAddress: 'https://v' },
    /wrappingKey: is needed, since keys\.seal\.by is vault/,
  ],
  [
    'a seal without its section',
    { keysSealBy: 'vault', keysSealWrappingKey: 'x' },
    /is vault, and nothing below keys\.vault says where that is/,
  ],
  [
    'a seal where there is no file',
    { keysStore: 'memory', keysSealPassphraseFile: '/x' },
    /there is no file to seal, since keys\.store is memory/,
  ],
] as const) {
  test(`${what} is refused with what is expected`, async () => {
    await assert.rejects(read(flags), fault('config/invalid', message));
  });
}

test('the agent, whose key must be at hand for TLS, keeps it in a file or in memory', async () => {
  const { problems } = await inspectOptions(agentProgram, { flags: { keysStore: 'aws-kms' } });
  assert.ok(problems.some((problem) => /"aws-kms" is not one of disk, memory/.test(problem)));
});
