/** Which secrets a process gets by which name, in which form, and who gets none. */
import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { pemDecode } from '../../../src/crypto/pem.ts';
import type { Fault } from '../../../src/errors.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { id } from '../support/agent-rig.ts';
import { envoyNode, openStream, read, type SdsRigOptions, sds, sdsRig, secretUrl } from '../support/sds-rig.ts';

const minute = 60_000;
const other = parseTrustDomain('other.org');
const third = parseTrustDomain('third.org');

/** An agent with two identities, the second of which federates with another trust domain. */
async function federated(options: SdsRigOptions = {}) {
  const rig = await sdsRig({
    ...options,
    before(server) {
      server.put({ id: 'a', createdAt: 100 });
      server.put({ id: 'b', createdAt: 200, federatesWith: [other] });
    },
  });
  const authority = testAuthority({ trustDomain: other, now: rig.clock.now() });
  const bundle: Bundle = { ...authority.bundle(), trustDomain: other };
  rig.server.putBundle(bundle);
  await rig.start();
  const fetch = async (resource_names: readonly string[], node: object | null = envoyNode()) =>
    read(await rig.envoy().unary(sds, 'FetchSecrets', { resource_names, type_url: secretUrl, node }));
  return { ...rig, other: authority, bundle, fetch };
}
type Federated = Awaited<ReturnType<typeof federated>>;

const ders = (pem: string): Buffer[] => pemDecode(pem, 'CERTIFICATE');
const sameRoots = (pem: string, ...expected: Buffer[]) => assert.deepEqual(ders(pem), expected);
/** The chain verifies, names the ID, and the key is its leaf's. */
function isSvid(rig: Federated, secret: any, path: string): void {
  assert.equal(secret.kind, 'tls_certificate');
  const chain = ders(secret.chain);
  assert.equal(verifyX509Svid(chain, rig.server.authority.bundle(), rig.clock.now()).id, id(path));
  assert.ok(new X509Certificate(chain[0]!).checkPrivateKey(createPrivateKey(secret.key)));
}

test('a SPIFFE ID is its certificate chain and key as PEM, and a default name that of the oldest entry', async () => {
  const rig = await federated();
  const answer = await rig.fetch([id('/b'), 'default', id('/a')]);
  assert.deepEqual(answer.names, [id('/b'), 'default', id('/a')]);
  isSvid(rig, answer.secrets[id('/b')], '/b');
  isSvid(rig, answer.secrets.default, '/a');
  isSvid(rig, answer.secrets[id('/a')], '/a');
  assert.equal(answer.type_url, secretUrl);
  rig.stop();
});

test('a trust domain and the default name of one are the SPIFFE validator with that domain alone', async () => {
  const rig = await federated();
  const { secrets } = await rig.fetch(['spiffe://example.org', 'spiffe://other.org', 'ROOTCA']);
  for (const [name, domain, root] of [
    ['spiffe://example.org', 'example.org', rig.server.authority.der],
    ['spiffe://other.org', 'other.org', rig.other.der],
    ['ROOTCA', 'example.org', rig.server.authority.der],
  ] as const) {
    const secret = secrets[name];
    assert.equal(secret.validator, 'envoy.tls.cert_validator.spiffe');
    assert.match(secret.validatorType, /^type\.googleapis\.com\/envoy\.extensions\..*\.SPIFFECertValidatorConfig$/);
    assert.deepEqual(Object.keys(secret.domains), [domain]);
    sameRoots(secret.domains[domain], root);
    assert.equal(secret.trustedCa, undefined);
  }
  rig.stop();
});

test('ALL is the SPIFFE validator with the own and every federated trust domain, each with its own authorities', async () => {
  const rig = await federated();
  const { domains } = (await rig.fetch(['ALL'])).secrets.ALL;
  assert.deepEqual(Object.keys(domains), ['example.org', 'other.org']);
  sameRoots(domains['example.org'], rig.server.authority.der);
  sameRoots(domains['other.org'], rig.other.der);
  rig.stop();
});

for (const [what, node, kind] of [
  ['Envoy 1.18', envoyNode(18), 'spiffe'],
  ['Envoy 2.0', { user_agent_build_version: { version: { major_number: 2 } } }, 'spiffe'],
  ['Envoy 1.17', envoyNode(17), 'plain'],
  [
    'Envoy 1.30 whose node says "true"',
    envoyNode(30, { disable_spiffe_cert_validation: { stringValue: 'true' } }),
    'plain',
  ],
  ['Envoy 1.30 whose node says true', envoyNode(30, { disable_spiffe_cert_validation: { boolValue: true } }), 'plain'],
  [
    'Envoy 1.30 whose node says "maybe"',
    envoyNode(30, { disable_spiffe_cert_validation: { stringValue: 'maybe' } }),
    'spiffe',
  ],
  ['a client that says no version', { id: 'x' }, 'plain'],
  ['a client without a node', null, 'plain'],
] as const) {
  test(`${what} gets the ${kind} kind of validation context`, async () => {
    const rig = await federated();
    const { ROOTCA: secret } = (await rig.fetch(['ROOTCA'], node)).secrets;
    if (kind === 'plain') sameRoots(secret.trustedCa, rig.server.authority.der);
    else sameRoots(secret.domains['example.org'], rig.server.authority.der);
    assert.equal(secret.trustedCa === undefined, kind === 'spiffe');
    assert.equal(secret.validator === undefined, kind === 'plain');
    rig.stop();
  });
}

test('with disableSpiffeCertValidation every client gets the plain kind, unless its node says otherwise', async () => {
  const rig = await federated({ sds: { disableSpiffeCertValidation: true } });
  assert.ok((await rig.fetch(['ROOTCA'])).secrets.ROOTCA.trustedCa);
  const node = envoyNode(30, { disable_spiffe_cert_validation: { boolValue: false } });
  assert.ok((await rig.fetch(['ROOTCA'], node)).secrets.ROOTCA.domains);
  rig.stop();
});

test('the plain kind never mixes trust domains: ALL is left out for who can only take that, and said once', async () => {
  const rig = await federated({ sds: { disableSpiffeCertValidation: true } });
  for (let round = 0; round < 3; round++) {
    assert.deepEqual((await rig.fetch(['ALL', 'ROOTCA'])).names, ['ROOTCA']);
  }
  assert.equal(rig.lines.length, 1);
  assert.deepEqual(rig.lines[0].names, ['"ALL"']);
  // Who does not say what it is gets the only form there is.
  const unsaid = await federated();
  assert.deepEqual(Object.keys((await unsaid.fetch(['ALL'], null)).secrets.ALL.domains), ['example.org', 'other.org']);
  rig.stop();
  unsaid.stop();
});

test('the default names are the configured ones, and the built-in ones then mean nothing', async () => {
  const rig = await federated({
    sds: { defaultSvidName: 'me', defaultBundleName: 'null', defaultAllBundlesName: 'ROOTCA' },
  });
  const answer = await rig.fetch(['me', 'ROOTCA', 'default', 'ALL']);
  assert.deepEqual(answer.names, ['me', 'ROOTCA']);
  assert.deepEqual(Object.keys(answer.secrets.ROOTCA.domains), ['example.org', 'other.org']);
  rig.stop();
});

test('no names at all are all: each identity and each trust domain under its own name', async () => {
  const rig = await federated();
  assert.deepEqual((await rig.fetch([])).names, ['spiffe://example.org', 'spiffe://other.org', id('/a'), id('/b')]);
  assert.deepEqual((await rig.fetch([''])).names.length, 4);
  rig.stop();
});

test('two entries with one SPIFFE ID are one secret, the older one’s', async () => {
  const rig = await sdsRig();
  rig.server.put({ id: 'x', spiffeId: id('/same'), createdAt: 100, dnsNames: ['old'] });
  rig.server.put({ id: 'y', spiffeId: id('/same'), createdAt: 200, dnsNames: ['new'] });
  await rig.start();
  const { names } = read(await rig.envoy().unary(sds, 'FetchSecrets', {}));
  assert.deepEqual(names, ['spiffe://example.org', id('/same')]);
  rig.stop();
});

test('revocation lists of a trust domain go with the plain kind, and a new list is a new version', async () => {
  let lists: readonly Buffer[] = [Buffer.from('30030201', 'hex')];
  const rig = await federated({ crls: (trustDomain) => (trustDomain === other ? lists : []) });
  const before = await rig.fetch(['spiffe://other.org', 'ROOTCA'], null);
  assert.deepEqual(pemDecode(before.secrets['spiffe://other.org'].crl, 'X509 CRL'), lists);
  assert.equal(before.secrets.ROOTCA.crl, undefined);
  lists = [...lists, Buffer.from('30030202', 'hex')];
  const after = await rig.fetch(['spiffe://other.org', 'ROOTCA'], null);
  assert.deepEqual(pemDecode(after.secrets['spiffe://other.org'].crl, 'X509 CRL'), lists);
  assert.notEqual(after.version_info, before.version_info);
  rig.stop();
});

test('a trust domain without X.509 authorities is left out: Envoy refuses a context with nothing in it', async () => {
  const rig = await federated();
  rig.server.putBundle({ ...rig.bundle, x509Authorities: [] });
  await rig.clock.advance(0);
  assert.deepEqual((await rig.fetch(['spiffe://other.org', 'ALL'])).names, ['ALL']);
  assert.deepEqual(Object.keys((await rig.fetch(['ALL'])).secrets.ALL.domains), ['example.org']);
  rig.stop();
});

test('what a process is not entitled to is left out, and names that mean nothing by themselves are refused with what it has', async () => {
  const rig = await federated();
  rig.server.put({ id: 'theirs', selectors: [parseSelector('unix:uid:7')] });
  rig.server.putBundle({ ...rig.bundle, trustDomain: third });
  await rig.clock.advance(0);
  assert.deepEqual((await rig.fetch([id('/theirs'), 'spiffe://third.org', id('/a')])).names, [id('/a')]);
  await assert.rejects(rig.fetch([id('/theirs')]), (fault: Fault) => {
    assert.equal(fault.status, 3);
    assert.match(fault.message, /not entitled .* spiffe:\/\/example\.org, .*\/a, .*\/b/);
    return true;
  });
  assert.deepEqual(
    rig.lines.map(({ names }) => names),
    [[`"${id('/theirs')}"`, '"spiffe://third.org"'], [`"${id('/theirs')}"`]],
  );
  rig.stop();
});

test('names that Istio’s own agent answers from files are left out without a word', async () => {
  const rig = await federated();
  const names = ['file-root:/etc/certs/root.pem', 'file-cert:/etc/certs/a.pem~/etc/certs/key.pem', 'default'];
  assert.deepEqual((await rig.fetch(names)).names, ['default']);
  assert.deepEqual(rig.lines, []);
  rig.stop();
});

for (const method of ['FetchSecrets', 'StreamSecrets', 'DeltaSecrets'] as const) {
  const first = async (rig: Awaited<ReturnType<typeof sdsRig>>, selectors: string[], type_url = secretUrl) => {
    const channel = rig.envoy(...selectors);
    if (method === 'FetchSecrets') return channel.unary(sds, method, { type_url });
    const stream = openStream(channel, method, rig);
    await stream.send({ type_url });
    return stream.next();
  };

  test(`WE-16 ${method} by a process without an identity: PERMISSION_DENIED names its selectors and what to do`, async () => {
    const rig = await sdsRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(first(rig, ['unix:uid:7']), (fault: Fault) => {
      assert.equal(fault.status, 7);
      assert.match(fault.message, /^no identity issued: .*unix:uid:7.*mutual entry create/);
      return true;
    });
    rig.stop();
  });

  test(`${method} for another type of resource is refused, and the type may be left out`, async () => {
    const rig = await sdsRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    const clusters = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
    await assert.rejects(first(rig, [], clusters), (fault: Fault) => {
      assert.equal(fault.status, 3);
      assert.match(fault.message, /type_url is .*Cluster.*expected/);
      return true;
    });
    assert.equal((await first(rig, [], '')).resources.length, 2);
    rig.stop();
  });

  test(`${method} asks for no header, unless the operator wants one`, async () => {
    const rig = await sdsRig({ sds: { requireHeader: true } });
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(first(rig, []), (fault: Fault) => {
      assert.equal(fault.status, 3);
      assert.match(fault.message, /security header missing from request.*initial_metadata/);
      return true;
    });
    const channel = rig.envoy();
    const metadata = { 'workload.spiffe.io': 'true' };
    const stream = method === 'FetchSecrets' ? undefined : channel.bidi(sds, method, { metadata });
    await stream?.send({});
    const answer = stream
      ? (await stream.responses[Symbol.asyncIterator]().next()).value
      : await channel.unary(sds, method, {}, { metadata });
    assert.equal(answer.resources.length, 2);
    rig.stop();
  });
}

test('FetchSecrets waits for an SVID that is on its way, as long as ten seconds', async () => {
  const rig = await sdsRig();
  rig.server.put({ id: 'a' });
  const { promise, resolve } = Promise.withResolvers<void>();
  rig.server.instead.set('BatchNewX509SVID', async (usual) => promise.then(usual));
  await rig.start();
  const outcomes: any[] = [];
  const ask = (...resource_names: string[]): void => {
    rig
      .envoy()
      .unary(sds, 'FetchSecrets', { resource_names })
      .then(
        (answer) => outcomes.push(read(answer).names),
        (fault) => outcomes.push(fault.status),
      );
  };
  ask('ROOTCA');
  await rig.clock.advance(0);
  assert.deepEqual(outcomes.splice(0), [['ROOTCA']], 'what is there is not held');
  ask('default');
  await rig.clock.advance(9_999);
  assert.deepEqual(outcomes, []);
  await rig.clock.advance(1);
  assert.deepEqual(outcomes.splice(0), [14], 'UNAVAILABLE');
  ask('default');
  await rig.clock.advance(1_000);
  resolve();
  await rig.clock.advance(0);
  assert.deepEqual(outcomes, [['default']]);
  rig.stop();
});

test('a version names the content: it outlives the agent, and a renewed SVID has another', async () => {
  const rig = await federated();
  const before = await rig.fetch(['default', 'ALL']);
  assert.equal((await rig.fetch(['ALL', 'default'])).version_info, before.version_info);
  const again = await sdsRig({ world: { ...rig.cache, ...rig.cache.position }, svids: [...rig.cache.svids.values()] });
  await again.clock.advance(rig.clock.now() - again.clock.now());
  const kept = read(await again.envoy().unary(sds, 'FetchSecrets', { resource_names: ['default'] }));
  assert.equal(kept.version_info, (await rig.fetch(['default'])).version_info);
  await rig.clock.advance(31 * minute);
  assert.notEqual((await rig.fetch(['default', 'ALL'])).version_info, before.version_info);
  rig.stop();
  again.stop();
});

test('a secret is encoded once for each SVID and bundle: all who ask get the same bytes', async () => {
  const rig = await federated();
  const { everyName, findSecret } = await import('../../../agent/api/sds-secrets.ts');
  const names = { defaultSvidName: 'default', defaultBundleName: 'ROOTCA', defaultAllBundlesName: 'ALL' };
  const source = { cache: rig.cache, names };
  const one = rig.cache.identities([parseSelector('unix:uid:1000')]);
  const two = rig.cache.identities([parseSelector('unix:uid:1000'), parseSelector('unix:gid:5')]);
  for (const name of [...everyName(one, source), 'default', 'ROOTCA', 'ALL']) {
    const found = findSecret(name, one, 'spiffe', source);
    assert.ok(typeof found === 'object', name);
    assert.equal(findSecret(name, two, 'spiffe', source), found, name);
  }
  rig.stop();
});

test('no private key reaches the log, whatever is asked and said', async () => {
  const rig = await federated();
  const { default: secret } = (await rig.fetch(['default'])).secrets;
  const stream = openStream(rig.envoy(), 'StreamSecrets', rig);
  await stream.send({ resource_names: ['default', secret.key] });
  const answer = await stream.next();
  await stream.send({ response_nonce: answer.nonce, error_detail: { code: 13, message: `cannot read ${secret.key}` } });
  await rig.clock.advance(0);
  assert.equal(rig.texts.length, 2);
  const key = secret.key.split('\n')[1];
  for (const text of rig.texts) assert.ok(!text.includes(key.slice(0, 30)), text);
  rig.stop();
});
