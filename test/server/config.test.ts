import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readServerOptions, serverProgram } from '../../server/config.ts';
import { inspectOptions } from '../../src/config/read.ts';
import { rowsOf } from '../../src/config.ts';

const least = { trustDomain: 'example.org' };
const problems = async (flags: object, text?: string): Promise<readonly string[]> => {
  const file = text === undefined ? undefined : { path: 'server.yaml', text };
  return (await inspectOptions(serverProgram, { flags: { ...least, ...flags }, file })).problems;
};

test('a trust domain is enough; all else has the defaults SPIRE has', async () => {
  const { options, warnings } = await readServerOptions({ flags: least });
  assert.deepEqual(warnings, []);
  assert.deepEqual(options, {
    trustDomain: 'example.org',
    dataDir: '.mutual/server',
    listen: { host: '0.0.0.0', port: 8081 },
    adminSocket: '.mutual/server/private/api.sock',
    adminSocketMode: 0o770,
    database: 'sqlite:.mutual/server/mutual.db',
    migrateAtStart: true,
    adminIds: [],
    defaultX509SvidTtl: 3_600_000,
    defaultJwtSvidTtl: 300_000,
    agentTtl: 3_600_000,
    caTtl: 86_400_000,
    caKeyType: 'ec-p256',
    jwtKeyType: 'ec-p256',
    caSubject: { country: ['US'], organization: ['SPIFFE'], commonName: '' },
    disableJwtSvids: false,
    witSvids: { enabled: false, ttl: 3_600_000 },
    refreshHint: 300_000,
    rateLimits: { attest: 1, csr: 500, jwt: 500, wit: 500, push: 500, post: 10 },
    revocation: { record: true, withdrawn: false },
    nodeAttestors: { joinToken: { enabled: true } },
    keys: { store: 'disk', shareJwt: false },
    workers: 0,
    upstream: { authority: 'none' },
    log: { level: 'info', format: 'text' },
    tls: { requirePostQuantum: false },
    experimental: { mlDsa: false },
    health: { livePath: '/live', readyPath: '/ready' },
    metrics: {},
  });
});

test('what follows from another option follows its final value', async () => {
  const { options } = await readServerOptions({
    flags: { ...least, dataDir: '/var/lib/mutual', defaultX509SvidTtl: '2h', caKeyType: 'rsa-2048' },
  });
  assert.equal(options.adminSocket, '/var/lib/mutual/private/api.sock');
  assert.equal(options.database, 'sqlite:/var/lib/mutual/mutual.db');
  assert.equal(options.agentTtl, 7_200_000);
  assert.equal(options.jwtKeyType, 'rsa-2048');
});

test('a PostgreSQL URL is accepted in both spellings, and one without a database is refused without its password', async () => {
  for (const database of ['postgres://me:secret@db:5432/mutual', 'postgresql://me@/mutual?host=/run/postgresql']) {
    assert.equal((await readServerOptions({ flags: { ...least, database } })).options.database, database);
  }
  for (const database of [
    'postgres://me:secret@db',
    'postgres://me:secret@db/',
    'postgres:me:secret',
    'my://a:secret@b/c',
  ]) {
    await assert.rejects(
      readServerOptions({ flags: { ...least, database } }),
      (error: Error) =>
        /--database: (names no database|is not a database)/.test(error.message) && !/secret/.test(error.message),
      database,
    );
  }
});

test('the fixed names that scripts rely on', () => {
  const rows = rowsOf(serverProgram.table);
  const flags = rows.map(({ flag }) => flag).filter((flag) => flag !== '');
  for (const flag of ['--trust-domain', '--data-dir', '--listen', '--admin-socket'])
    assert.ok(flags.includes(flag), flag);
  assert.equal(rows.find(({ path }) => path === 'adminSocket')?.env, 'MUTUAL_ADMIN_SOCKET');
  assert.equal(new Set(flags).size, flags.length);
  assert.equal(new Set(rows.map(({ env }) => env)).size, rows.length);
});

const refused: [string, object, RegExp][] = [
  [
    'a trust domain with a slash',
    { trustDomain: 'example.org/x' },
    /^--trust-domain: trust domain "example.org\/x" is not valid: it contains a "\/"/,
  ],
  ['a trust domain as an ID', { trustDomain: 'spiffe://example.org' }, /^--trust-domain: trust domain .* is not valid/],
  [
    'a port out of range',
    { listen: '0.0.0.0:70000' },
    /^--listen: "0.0.0.0:70000" is not HOST:PORT with a port from 0 to 65535/,
  ],
  [
    'a socket path of 108 bytes',
    { adminSocket: `/${'s'.repeat(107)}` },
    /^--admin-socket: socket path "\/s+s" is 108 bytes long; the system takes at most 107/,
  ],
  [
    'a data directory too deep for its socket',
    { dataDir: `/${'d'.repeat(100)}` },
    /^adminSocket: socket path .* bytes long/,
  ],
  ['a lifetime of nothing', { caTtl: '0s' }, /^--ca-ttl: "0s" is not a duration from 1s/],
  [
    'a database of another kind',
    { database: 'mysql:x' },
    /^--database: is not a database this version knows; give sqlite:PATH/,
  ],
  [
    'a replica of SQLite',
    { databaseReplica: 'postgres://me:hush@db/mutual' },
    /^--database-replica: is for a database of PostgreSQL; SQLite has no replicas, so leave it out$/,
  ],
  [
    'a replica that is no address of PostgreSQL',
    { database: 'postgres://me@db/mutual', databaseReplica: 'sqlite:hush' },
    /^--database-replica: is no standby: give postgres:\/\/USER:PASSWORD@HOST\/DATABASE$/,
  ],
  ['a key type SPIRE has not', { caKeyType: 'ed25519' }, /^--ca-key-type: "ed25519" is not one of ec-p256/],
  [
    'a key type that is experimental',
    { caKeyType: 'ml-dsa-65' },
    /^--ca-key-type: "ml-dsa-65" is experimental; set experimental.mlDsa to true to use it/,
  ],
  ['a token key that no token may have', { jwtKeyType: 'ml-dsa-65' }, /^--jwt-key-type: "ml-dsa-65" is not one of/],
  ['an admin that is no SPIFFE ID', { adminIds: ['root'] }, /^--admin-ids: SPIFFE ID "root" is not valid/],
  [
    'x509pop without roots',
    { nodeAttestorsX509popMode: 'external_pki' },
    /^nodeAttestors.x509pop.caBundlePaths: is empty; mode external_pki needs/,
  ],
  [
    'an issuer of WIT-SVIDs that OpenID Connect could have',
    { witSvidsIssuer: 'https://issuer.example' },
    /^--wit-svids-issuer: "https:\/\/issuer.example" could be an issuer of OpenID Connect/,
  ],
  [
    'one path for live and ready',
    { healthReadyPath: '/live' },
    /^--health-ready-path: "\/live" is also health.livePath/,
  ],
  [
    'shared JWT keys that nothing seals',
    { keysShareJwt: true },
    /^--keys-share-jwt: puts the key into the database, where it must be sealed: give keys\.seal/,
  ],
  [
    'shared JWT keys in memory',
    { keysShareJwt: true, keysStore: 'memory' },
    /^--keys-share-jwt: needs a key store that outlives this process/,
  ],
];
for (const [what, flags, says] of refused) {
  test(`refuses ${what}`, async () => {
    const found = await problems(flags);
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(found[0]!, says);
  });
}

test('a path of 107 bytes is taken', async () => {
  assert.deepEqual(await problems({ adminSocket: `/${'s'.repeat(106)}` }), []);
});

test('a lifetime above a sixth of the authority is a warning that says what to do', async () => {
  const { warnings } = await readServerOptions({ flags: { ...least, caTtl: '3h' } });
  assert.equal(warnings.length, 2);
  assert.match(
    warnings[0]!,
    /^defaultX509SvidTtl: 1h is longer than a sixth of caTtl \(3h\).*use at most 30m or a longer caTtl$/,
  );
});

test('x509pop is configured by its section', async () => {
  const text = 'nodeAttestors:\n  x509pop:\n    caBundlePaths: [/etc/ca.pem]\n';
  const { options } = await readServerOptions({ flags: least, file: { path: 'server.yaml', text } });
  assert.deepEqual(options.nodeAttestors.x509pop, {
    mode: 'external_pki',
    caBundlePaths: ['/etc/ca.pem'],
    spiffePrefix: '/spire-exchange',
    maxIntermediates: 4,
    maxRsaKeySize: 8192,
  });
});

test('the spellings of SPIRE are refused with ours', async () => {
  const found = await problems({}, 'trust_domain: a\ndata_dir: b\nca_ttl: 1h\nbind_port: 8081\n');
  assert.deepEqual(found, [
    'server.yaml:1:1: trust_domain: is not an option; did you mean "trustDomain"?',
    'server.yaml:2:1: data_dir: is not an option; did you mean "dataDir"?',
    'server.yaml:3:1: ca_ttl: is not an option; did you mean "caTtl"?',
    'server.yaml:4:1: bind_port: is not an option',
  ]);
});

test('a CA of ML-DSA, asked for twice, is warned of, and tokens are signed by another type', async () => {
  const flags = { ...least, caKeyType: 'ml-dsa-65', experimentalMlDsa: true };
  const { options, warnings } = await readServerOptions({ flags });
  assert.deepEqual([options.caKeyType, options.jwtKeyType], ['ml-dsa-65', 'ec-p256']);
  assert.match(warnings.join(), /--ca-key-type: "ml-dsa-65" is experimental/);
});
