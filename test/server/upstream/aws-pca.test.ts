/** Upstream `aws-pca`, with a fake of the SDK and of AWS Private CA behind it. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readServerOptions } from '../../../server/config.ts';
import { type AwsPcaOptions, awsPcaUpstream } from '../../../server/upstream/aws-pca.ts';
import { checkMinted } from '../../../server/upstream/minted.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { parseCertificate } from '../../../src/crypto/certificate.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { trustDomainId } from '../../../src/spiffe/id.ts';
import { upstreamSuite } from '../../suites/upstream.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import { awsError } from '../../support/fake-aws-kms.ts';
import { arn, fakeAwsPca, region, role, rotateAwsPca } from '../../support/fake-aws-pca.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';
import { td, testServer } from '../../support/server.ts';

const signal = new AbortController().signal;
const hour = 3_600_000;
const day = 24 * hour;
const needed = { 'upstream-authority': 'aws-pca', 'upstream-aws-pca-region': region };
const flags = { ...needed, 'upstream-aws-pca-certificate-authority-arn': arn };

async function under(options: Partial<AwsPcaOptions> = {}, shape: { intermediate?: boolean } = {}) {
  const clock = drivenClock();
  const fake = fakeAwsPca(clock, shape);
  const { load } = keyPorts(fake.packages, clock);
  const upstream = await awsPcaUpstream({ region, certificateAuthorityArn: arn, ...options }, { clock, load });
  const rotate = async () => rotateAwsPca(fake, clock, shape);
  return { clock, fake, load, upstream, flags, rotate, close: async () => upstream.close?.() };
}

upstreamSuite('aws-pca (a fake SDK), a root', () => under());
upstreamSuite('aws-pca (a fake SDK), an authority below a root', () => under({}, { intermediate: true }));
upstreamSuite('aws-pca (a fake SDK), by a role', async () => {
  const found = await under({ assumeRoleArn: role });
  found.fake.needsRole = true;
  return { ...found, flags: { ...flags, 'upstream-aws-pca-assume-role-arn': role } };
});

const request = (key = generateKey('ec-p256').privateKey) => makeCsr(key, { uri: trustDomainId(td), authority: true });
async function opened(t: TestContext, options: Partial<AwsPcaOptions> = {}) {
  const found = await under(options);
  t.after(found.close);
  return found;
}
const names = (fake: { calls: readonly { command: string }[] }) => fake.calls.map(({ command }) => command);

test('a certificate that takes its time is waited for, and one that never comes is asked for by the same token', async (t) => {
  const { clock, fake, upstream } = await opened(t);
  const { privateKey } = generateKey('ec-p256');
  const ended = async (minting: Promise<unknown>) => {
    let over = false;
    const done = () => {
      over = true;
    };
    minting.then(done, done);
    for (let step = 0; step < 200 && !over; step++) await clock.advance(1_000);
    return minting;
  };
  fake.delay = 3;
  await ended(upstream.mint(request(), hour, signal));
  assert.equal(names(fake).filter((name) => name === 'GetCertificate').length, 4);
  fake.delay = 31;
  await assert.rejects(
    ended(upstream.mint(request(privateKey), hour, signal)),
    fault('upstream/unavailable', /^AWS Private CA has no certificate of ".*" after 30 s$/),
  );
  // The request is written and signed anew; the key is the same.
  await ended(upstream.mint(request(privateKey), hour, signal));
  assert.equal(fake.made.size, 2);
});

test('a certificate that AWS could not make is told, and the next try is another request', async (t) => {
  const { fake, upstream } = await opened(t);
  const { privateKey } = generateKey('ec-p256');
  fake.failures.set('GetCertificate', awsError('RequestFailedException'));
  await assert.rejects(upstream.mint(request(privateKey), hour, signal), fault('upstream/refused', /could not make/));
  fake.failures.clear();
  await upstream.mint(request(privateKey), hour, signal);
  assert.equal(fake.made.size, 2);
});

test('nothing is asked for that would outlive the authority, or the week of one for short lives', async (t) => {
  const { clock, fake, upstream } = await opened(t);
  const ends = async (ttl: number) =>
    parseCertificate((await upstream.mint(request(), ttl, signal)).chain[0]!).notAfter;
  assert.equal(await ends(365 * day), fake.authority.certificate.notAfter);
  const long = testAuthority({ now: clock.now(), root: { uris: [], notAfter: clock.now() + 365 * day } });
  fake.authority = long;
  assert.equal(await ends(30 * day), clock.now() + 30 * day);
  fake.usageMode = 'SHORT_LIVED_CERTIFICATE';
  assert.equal(await ends(30 * day), clock.now() + 7 * day);
});

test('the algorithm and the template are those of the options, else of the authority and its partition', async (t) => {
  const { clock, fake, load, upstream } = await opened(t);
  fake.authority = testAuthority({ now: clock.now(), keyType: 'rsa-2048' });
  await upstream.mint(request(), hour, signal);
  const asked = () => fake.calls.findLast(({ command }) => command === 'IssueCertificate')!.input;
  assert.equal(asked().SigningAlgorithm, 'SHA256WITHRSA');
  assert.equal(asked().TemplateArn, 'arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1');

  const options = {
    signingAlgorithm: 'SHA512WITHRSA',
    caSigningTemplateArn: 'arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen3/V1',
  };
  const chosen = await awsPcaUpstream({ region, certificateAuthorityArn: arn, ...options }, { clock, load });
  await assert.rejects(chosen.mint(request(), hour, signal), fault('upstream/refused', /refuses IssueCertificate/));
  assert.equal(asked().SigningAlgorithm, 'SHA512WITHRSA');
  assert.equal(asked().TemplateArn, options.caSigningTemplateArn);

  const china = { region, certificateAuthorityArn: arn.replace('aws', 'aws-cn') };
  fake.failures.set('DescribeCertificateAuthority', awsError('ResourceNotFoundException'));
  const elsewhere = await awsPcaUpstream(china, { clock, load });
  await assert.rejects(elsewhere.mint(request(), hour, signal), fault('upstream/refused', /arn:aws-cn/));
});

test('roots of the file are trusted beside that of the chain, and are read anew', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  t.after(() => rm(dir, { recursive: true }));
  const supplementalBundlePath = join(dir, 'roots.pem');
  const [one, two] = [testAuthority({ now: Date.UTC(2030, 0, 1) }), testAuthority({ now: Date.UTC(2030, 0, 1) })];
  await writeFile(supplementalBundlePath, pemEncode('CERTIFICATE', one.der));
  const { clock, fake, upstream } = await opened(t, { supplementalBundlePath });
  const roots = async () => (await upstream.state!(signal)).x509Authorities.map(({ certificate }) => certificate);
  assert.deepEqual(await roots(), [fake.authority.der, one.der]);
  await writeFile(
    supplementalBundlePath,
    pemEncode('CERTIFICATE', two.der) + pemEncode('CERTIFICATE', fake.authority.der),
  );
  assert.deepEqual(await roots(), [fake.authority.der, two.der]);
  const { roots: minted } = await upstream.mint(request(), hour, signal);
  assert.deepEqual(
    minted.map(({ certificate }) => certificate),
    [fake.authority.der, two.der],
  );
  // AWS is asked for its own once a minute.
  const asked = names(fake).filter((name) => name === 'GetCertificateAuthorityCertificate').length;
  assert.equal(asked, 1);
  clock.jump(60_000);
  await roots();
  assert.equal(names(fake).filter((name) => name === 'GetCertificateAuthorityCertificate').length, 2);
});

test('a chain that reaches no root, and one that does not verify, are refused', async (t) => {
  const { clock, fake, upstream } = await opened(t);
  const root = fake.authority;
  fake.authority = root.intermediate();
  await assert.rejects(upstream.mint(request(), hour, signal), fault('upstream/refused', /does not reach a root/));
  fake.above = [testAuthority({ now: clock.now() }).der];
  const key = generateKey('ec-p256');
  const minted = await upstream.mint(request(key.privateKey), hour, signal);
  const spki = key.publicKey.export({ format: 'der', type: 'spki' });
  assert.throws(
    () => checkMinted(minted, { spki, trustDomain: td }, clock.now()),
    fault('upstream/refused', /a chain that does not verify/),
  );
});

test('what AWS refuses or cannot do: a sentence each', async (t) => {
  const { fake, upstream } = await opened(t);
  const says = async (code: 'upstream/refused' | 'upstream/unavailable', what: RegExp) => {
    await assert.rejects(upstream.mint(request(), hour, signal), fault(code, what));
    await assert.rejects(async () => upstream.state!(signal), fault(code, what));
  };
  for (const status of ['CREATING', 'PENDING_CERTIFICATE', 'DISABLED', 'EXPIRED', 'DELETED', 'FAILED']) {
    fake.status = status;
    await says('upstream/refused', new RegExp(`^"${arn}" is ${status}.*; it has to be ACTIVE$`));
  }
  fake.status = 'ACTIVE';
  const failing = (error: Error) => fake.failures.set('DescribeCertificateAuthority', error);
  failing(awsError('ResourceNotFoundException'));
  await says('upstream/refused', /^AWS Private CA has no certificate authority "arn:.*" in region "eu-test-1"$/);
  failing(awsError('AccessDeniedException'));
  await says('upstream/refused', /does not let this server call acm-pca:DescribeCertificateAuthority on "arn:/);
  failing(awsError('UnrecognizedClientException'));
  await says('upstream/refused', /refuses the credentials of this server, or there are none$/);
  failing(awsError('ThrottlingException'));
  await says('upstream/unavailable', /^AWS Private CA has too many calls to answer$/);
  failing(awsError('InternalFailure', 500));
  await says('upstream/unavailable', /failed with status 500/);
  failing(new Error('connect ECONNREFUSED'));
  await says('upstream/unavailable', /^AWS Private CA cannot be reached$/);
  failing(awsError('ValidationException'));
  await says('upstream/refused', /refuses DescribeCertificateAuthority of "arn:/);
});

test('a role that is denied is named, before AWS Private CA is asked', async (t) => {
  const stranger = role.replace('identity', 'strangers');
  const { fake, upstream } = await opened(t, { assumeRoleArn: stranger });
  await assert.rejects(
    upstream.mint(request(), hour, signal),
    fault('upstream/refused', /refuses role "arn:aws:iam::123456789012:role\/strangers" to the credentials/),
  );
  assert.deepEqual(names(fake), ['AssumeRole']);
});

test('a server does not start below an authority that signs nothing, and goes on with what it has when that stops', async (t) => {
  const { clock, fake, load } = await opened(t);
  fake.status = 'DISABLED';
  await assert.rejects(
    testServer(t, { clock, flags, load }),
    fault('upstream/refused', /is DISABLED; it has to be ACTIVE/),
  );
  assert.equal(fake.made.size, 0);

  fake.status = 'ACTIVE';
  const server = await testServer(t, { clock, flags, load });
  const authorities = async () => {
    const { active, prepared } = await server.admin.call('localAuthority', 'GetX509AuthorityState');
    return [active?.authority_id, prepared?.authority_id];
  };
  const before = await authorities();
  const tries: [() => void, RegExp][] = [
    [() => (fake.status = 'EXPIRED'), /is EXPIRED; it has to be ACTIVE/],
    [() => fake.failures.set('*', new Error('getaddrinfo ENOTFOUND')), /AWS Private CA cannot be reached/],
    [() => fake.failures.set('*', awsError('ThrottlingException')), /has too many calls/],
    [() => fake.failures.set('GetCertificate', awsError('AccessDeniedException')), /call acm-pca:GetCertificate on/],
    [() => (fake.above = [Buffer.from('no certificate')]), /a certificate that cannot be read/],
    [() => fake.failures.set('IssueCertificate', awsError('LimitExceededException')), /has too many calls/],
  ];
  for (const [spoil, says] of tries) {
    clock.jump(6 * 60_000);
    spoil();
    const refused = await server.admin.refusal('localAuthority', 'PrepareX509Authority');
    assert.match(refused.message, says);
    assert.deepEqual(await authorities(), before, 'no half-made authority');
    await server.restart();
    assert.deepEqual(await authorities(), before);
    assert.equal((await server.mint('/workload')).chain.length, 2);
    fake.status = 'ACTIVE';
    fake.failures.clear();
    fake.above = [];
  }
  clock.jump(6 * 60_000);
  await server.admin.call('localAuthority', 'PrepareX509Authority');
});

test('what the options may not say, and a package that is not there', async () => {
  const refusal = (more: object, what: RegExp) =>
    assert.rejects(readServerOptions({ flags: { trustDomain: td, ...flags, ...more } }), what);
  await refusal(
    { 'upstream-aws-pca-certificate-authority-arn': 'arn:aws:iam::1:role/x' },
    /is not the ARN of a certificate authority/,
  );
  await refusal({ 'upstream-aws-pca-region': 'us-east-1' }, /"us-east-1".*is an authority of another region/);
  await refusal({ 'upstream-aws-pca-signing-algorithm': 'SHA1WITHRSA' }, /is not one of SHA256WITHECDSA/);
  await refusal({ 'upstream-aws-pca-ca-signing-template-arn': 'PathLen1' }, /is not the ARN of a template/);
  await refusal({ 'upstream-aws-pca-assume-role-arn': 'identity' }, /is not the ARN of a role/);
  await assert.rejects(readServerOptions({ flags: { trustDomain: td, ...needed } }), /certificateAuthorityArn/);

  const { load, clock } = keyPorts();
  const options = { region, certificateAuthorityArn: arn };
  await assert.rejects(
    awsPcaUpstream(options, { clock, load }),
    fault(
      'config/invalid',
      /upstream.authority aws-pca needs the package @aws-sdk\/client-acm-pca, which is not installed/,
    ),
  );
});
