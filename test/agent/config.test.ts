import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentProgram, readAgentOptions } from '../../agent/config.ts';
import { inspectOptions } from '../../src/config/read.ts';
import { rowsOf } from '../../src/config.ts';

const least = { trustDomain: 'example.org', server: '127.0.0.1:8081', trustBundle: 'bundle.pem' };

test('domain, server and a bundle are enough; all else has the defaults SPIRE has', async () => {
  const { options, warnings } = await readAgentOptions({ flags: least });
  assert.deepEqual(warnings, []);
  assert.deepEqual(options, {
    trustDomain: 'example.org',
    server: { host: '127.0.0.1', port: 8081 },
    dataDir: '.mutual/agent',
    socket: '.mutual/agent/public/api.sock',
    adminSocket: '.mutual/agent/private/admin.sock',
    trustBundle: 'bundle.pem',
    insecureBootstrap: false,
    nodeAttestor: {},
    workloadKeyType: 'ec-p256',
    agentKeyType: 'ec-p256',
    x509SvidCacheSize: 1000,
    witSvids: { enabled: false, keyType: 'ec-p256' },
    jwtSvidCacheSize: 1000,
    syncInterval: 5000,
    allowUnauthenticatedVerifiers: false,
    allowedForeignJwtClaims: [],
    authorizedDelegates: [],
    workloadAttestors: { unix: { discoverWorkloadPath: false, workloadSizeLimit: 0 } },
    svidStores: {},
    limits: { connectionsPerUser: 8192, callsPerUser: 16384, callsPerSecond: 0 },
    sds: {
      enabled: true,
      defaultSvidName: 'default',
      defaultBundleName: 'ROOTCA',
      defaultAllBundlesName: 'ALL',
      disableSpiffeCertValidation: false,
      requireHeader: false,
    },
    keys: { store: 'disk' },
    log: { level: 'info', format: 'text' },
    tls: { requirePostQuantum: false },
    experimental: { mlDsa: false },
    health: { livePath: '/live', readyPath: '/ready' },
    metrics: {},
  });
});

test('the fixed names that scripts rely on', () => {
  const rows = rowsOf(agentProgram.table);
  const flags = rows.map(({ flag }) => flag).filter((flag) => flag !== '');
  const fixed = [
    '--trust-domain',
    '--server',
    '--data-dir',
    '--socket',
    '--admin-socket',
    '--join-token',
    '--join-token-file',
    '--trust-bundle',
  ];
  for (const flag of fixed) assert.ok(flags.includes(flag), flag);
  const env = (path: string): string | undefined => rows.find((row) => row.path === path)?.env;
  assert.equal(env('joinToken'), 'MUTUAL_JOIN_TOKEN');
  assert.equal(env('socket'), 'SPIFFE_ENDPOINT_SOCKET');
  assert.equal(new Set(flags).size, flags.length);
  assert.equal(new Set(rows.map((row) => row.env)).size, rows.length);
});

test('WE-8 the socket is taken from SPIFFE_ENDPOINT_SOCKET, as the standard writes it', async () => {
  const { options } = await readAgentOptions({
    flags: least,
    env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/mutual/api.sock' },
  });
  assert.equal(options.socket, '/run/mutual/api.sock');
});

const refused: [string, object, RegExp][] = [
  [
    'nothing to know the server by',
    { trustBundle: undefined },
    /^trustBundle: the agent has nothing to know the server by; give one of --trust-bundle/,
  ],
  [
    'two ways to know it',
    { trustRootHash: 'a'.repeat(64) },
    /^--trust-root-hash: is given beside trustBundle; keep one$/,
  ],
  [
    'two tokens',
    { joinToken: 'x', joinTokenFile: 'y' },
    /^--join-token-file: is given beside joinToken; a node proves itself in one way/,
  ],
  [
    'a token and a certificate',
    { joinToken: 'x', nodeAttestorX509popPrivateKeyPath: 'k', nodeAttestorX509popCertificatePath: 'c' },
    /^nodeAttestor\.x509pop: is given beside joinToken/,
  ],
  [
    'half of x509pop',
    { nodeAttestorX509popPrivateKeyPath: 'k' },
    /^nodeAttestor\.x509pop\.certificatePath: is not set/,
  ],
  ['a server without a port', { server: 'localhost' }, /^--server: "localhost" is not HOST:PORT/],
  [
    'a bundle over plain http',
    { trustBundle: undefined, trustBundleUrl: 'http://x' },
    /^--trust-bundle-url: "http:\/\/x" is not an https URL/,
  ],
  ['a socket path of 108 bytes', { socket: `/${'s'.repeat(107)}` }, /^--socket: socket path .* is 108 bytes long/],
  [
    'an admin socket beside the public one',
    { socket: '/run/a/api.sock', adminSocket: '/run/a/admin.sock' },
    /^--admin-socket: "\/run\/a\/admin.sock" lies in the directory of the Workload API's socket/,
  ],
  [
    'an admin socket below the public one',
    { socket: '/run/a/api.sock', adminSocket: '/run/a/b/admin.sock' },
    /^--admin-socket: .* lies in the directory/,
  ],
  [
    'one SDS name for two secrets',
    { sdsDefaultAllBundlesName: 'ROOTCA' },
    /^--sds-default-all-bundles-name: "ROOTCA" is also sds.defaultBundleName/,
  ],
  [
    'an availability target of an hour',
    { availabilityTarget: '1h' },
    /^--availability-target: "1h" is not a duration from 24h/,
  ],
  [
    'a key type the agent cannot hand out',
    { workloadKeyType: 'ed25519' },
    /^--workload-key-type: "ed25519" is not one of/,
  ],
  [
    'a key type that is experimental',
    { agentKeyType: 'ml-dsa-44' },
    /^--agent-key-type: "ml-dsa-44" is experimental; set experimental.mlDsa to true/,
  ],
  [
    'a certificate for kubelet without its key',
    { workloadAttestorsK8sCertificatePath: '/x' },
    /^workloadAttestors.k8s.privateKeyPath: is needed too/,
  ],
  [
    'a certificate for kubelet that is not to be shown',
    {
      workloadAttestorsK8sCertificatePath: '/x',
      workloadAttestorsK8sPrivateKeyPath: '/y',
      workloadAttestorsK8sUseAnonymousAuthentication: true,
    },
    /is given beside certificatePath; keep one$/,
  ],
  [
    'one socket of Podman for two users',
    { workloadAttestorsPodmanUsers: ['1', '2'], workloadAttestorsPodmanUserSocketPath: '/run/p.sock' },
    /"\/run\/p.sock" is one socket for several users; write %d/,
  ],
  [
    'root as a user with an engine of its own',
    { workloadAttestorsPodmanUsers: ['0'] },
    /"0" is not a whole number from 1/,
  ],
  ['brokers that are served nowhere', { brokerProfiles: ['jwt'] }, /^broker\.socket: is needed, or broker\.listen/],
  ['a socket without brokers', { brokerSocket: '/run/b.sock' }, /^broker\.processes: is empty, and so is broker\.pods/],
  [
    'brokers over the network that may refer to nothing',
    { brokerListen: '127.0.0.1:0', workloadAttestorsK8sNodeName: 'n' },
    /^broker\.podsOverNetwork: is empty/,
  ],
  [
    'a right over the network without an address',
    {
      brokerSocket: '/run/b.sock',
      brokerProcesses: ['spiffe://example.org/b'],
      brokerPodsOverNetwork: ['spiffe://example.org/b'],
      workloadAttestorsK8sNodeName: 'n',
    },
    /^--broker-pods-over-network: is for brokers over broker\.listen/,
  ],
  [
    'a right over the socket without one',
    {
      brokerListen: '127.0.0.1:0',
      brokerProcesses: ['spiffe://example.org/b'],
      brokerPodsOverNetwork: ['spiffe://example.org/b'],
      workloadAttestorsK8sNodeName: 'n',
    },
    /^--broker-processes: is for brokers over broker\.socket/,
  ],
  [
    'pods where nobody knows any',
    { brokerSocket: '/run/b.sock', brokerPods: ['spiffe://example.org/b'] },
    /^--broker-pods: needs workloadAttestors\.k8s/,
  ],
  [
    'a broker that is no SPIFFE ID',
    { brokerSocket: '/run/b.sock', brokerProcesses: ['proxy'] },
    /^--broker-processes: .*"proxy"/,
  ],
  [
    'a version of Docker that is none',
    { workloadAttestorsDockerVersion: '1.41/../..' },
    /"1.41\/..\/.." is not a version of the API, such as 1.41/,
  ],
];
for (const [what, flags, says] of refused) {
  test(`refuses ${what}`, async () => {
    const { problems } = await inspectOptions(agentProgram, { flags: { ...least, ...flags } });
    assert.equal(problems.length, 1, problems.join('\n'));
    assert.match(problems[0]!, says);
  });
}

test('insecure only by name, and then with a warning', async () => {
  const { warnings } = await readAgentOptions({ flags: { ...least, trustBundle: undefined, insecureBootstrap: true } });
  assert.match(warnings.join(), /^--insecure-bootstrap: the first server that answers is believed/);
});

test('kubelet is believed unverified only by name, and then with a warning', async () => {
  const flags = { ...least, workloadAttestorsK8sSkipKubeletVerification: true };
  const { warnings } = await readAgentOptions({ flags });
  assert.match(warnings.join(), /^--workload-attestors-k8s-skip-kubelet-verification: whoever answers on the port/);
});

test('an attestor is there when its section is, with its defaults', async () => {
  const text = 'workloadAttestors:\n  k8s:\n  docker:\n';
  const { options } = await readAgentOptions({
    flags: least,
    file: { path: 'agent.yaml', text },
    env: { MY_NODE_NAME: 'n1' },
  });
  assert.equal(options.workloadAttestors.docker?.socketPath, '/var/run/docker.sock');
  assert.equal(options.workloadAttestors.k8s?.nodeName, 'n1');
  assert.equal(options.workloadAttestors.k8s?.kubeletSecurePort, 10250);
  assert.equal(options.workloadAttestors.podman, undefined);
});

test('a join token is never told', async () => {
  const flags = { ...least, joinToken: 'canary-token', joinTokenFile: 'y', server: 'x' };
  const { problems } = await inspectOptions(agentProgram, { flags });
  assert.doesNotMatch(problems.join(), /canary/);
});
