/**
 * Upstream `aws-pca` with the real SDK. What signs is a fake of AWS Private CA over HTTP, since moto signs no certificate
 * authorities; states and roles are those of moto.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type AwsPcaOptions, awsPcaUpstream } from '../../server/upstream/aws-pca.ts';
import { checkMinted } from '../../server/upstream/minted.ts';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import { upstreamSuite } from '../suites/upstream.ts';
import { drivenClock } from '../support/clock.ts';
import { awsError } from '../support/fake-aws-kms.ts';
import { arn, fakeAwsPca, region, role, rotateAwsPca } from '../support/fake-aws-pca.ts';
import { fault } from '../support/fault.ts';
import { td, testServer } from '../support/server.ts';
import { awsService } from './support/aws-json.ts';
import { startMoto } from './support/moto.ts';
import { makePlace } from './support/place.ts';
import { loadRealPackage } from './support/real-packages.ts';
import { until } from './support/until.ts';

const place = makePlace();
let moto = '';
before(async () => {
  moto = `http://127.0.0.1:${await startMoto(place)}`;
  process.env.AWS_ENDPOINT_URL_STS = moto;
});
after(() => place.close());

const signal = new AbortController().signal;
const hour = 3_600_000;
const load = loadRealPackage;

async function under(shape: { intermediate?: boolean } = {}, more: { assumeRoleArn?: string } = {}) {
  const clock = drivenClock();
  const fake = fakeAwsPca(clock, shape);
  const service = await awsService('ACMPrivateCA', `${region}/acm-pca`, (operation, input, accessKey) => {
    if (fake.needsRole && accessKey === 'test') throw awsError('AccessDeniedException');
    return fake.call(operation, input);
  });
  const options: AwsPcaOptions = { region, certificateAuthorityArn: arn, endpoint: service.endpoint, ...more };
  const upstream = await awsPcaUpstream(options, { clock, load });
  const flags = {
    'upstream-authority': 'aws-pca',
    'upstream-aws-pca-region': region,
    'upstream-aws-pca-certificate-authority-arn': arn,
    'upstream-aws-pca-endpoint': service.endpoint,
    ...(more.assumeRoleArn && { 'upstream-aws-pca-assume-role-arn': more.assumeRoleArn }),
  };
  const rotate = async () => rotateAwsPca(fake, clock, shape);
  async function close(): Promise<void> {
    await upstream.close?.();
    await service.close();
  }
  return { clock, fake, load, upstream, flags, rotate, close };
}

upstreamSuite('aws-pca (the real SDK, a fake of AWS Private CA), a root', () => under());
upstreamSuite('aws-pca (the real SDK, a fake of AWS Private CA), below a root', () => under({ intermediate: true }));
upstreamSuite('aws-pca (the real SDK, a fake of AWS Private CA), by a role of moto', async () => {
  const found = await under({}, { assumeRoleArn: role });
  found.fake.needsRole = true;
  return found;
});

const key = generateKey('ec-p256');
const request = makeCsr(key.privateKey, { uri: trustDomainId(td), authority: true });
const spki = key.publicKey.export({ format: 'der', type: 'spki' });

test('what AWS Private CA refuses comes through the real SDK as a sentence, and what takes its time is waited for', async (t) => {
  const { clock, fake, upstream, close } = await under();
  t.after(close);
  const says = async (error: Error, code: 'upstream/refused' | 'upstream/unavailable', what: RegExp) => {
    fake.failures.set('*', error);
    await assert.rejects(upstream.mint(request, hour, signal), fault(code, what));
  };
  await says(awsError('AccessDeniedException'), 'upstream/refused', /call acm-pca:DescribeCertificateAuthority/);
  await says(awsError('ThrottlingException'), 'upstream/unavailable', /too many calls/);
  await says(awsError('UnrecognizedClientException'), 'upstream/refused', /refuses the credentials/);
  await says(awsError('InternalFailure', 500), 'upstream/unavailable', /failed with status 500/);
  fake.failures.clear();
  fake.delay = 2;
  let minted: unknown;
  const minting = upstream.mint(request, hour, signal).then((found) => {
    minted = found;
    checkMinted(found, { spki, trustDomain: td }, clock.now());
  });
  await until('the certificate is there', 60_000, async () => {
    await clock.advance(1_000);
    return minted;
  });
  await minting;
  const looked = fake.calls.filter(({ command }) => command === 'GetCertificate').length;
  assert.equal(looked, 3);
});

test('moto: an authority without a certificate, one whose certificates are no authorities, one that is disabled, none at all', async (t) => {
  // Of regions moto knows those there are.
  const region = 'eu-west-1';
  const sdk = await load('@aws-sdk/client-acm-pca');
  const client = new sdk.ACMPCAClient({ region, endpoint: moto });
  t.after(() => client.destroy());
  // biome-ignore lint/suspicious/noExplicitAny: the SDK's answers.
  const ask = (command: string, input: object): Promise<any> => client.send(new sdk[`${command}Command`](input));
  const { CertificateAuthorityArn: made } = await ask('CreateCertificateAuthority', {
    CertificateAuthorityType: 'ROOT',
    CertificateAuthorityConfiguration: {
      KeyAlgorithm: 'RSA_2048',
      SigningAlgorithm: 'SHA512WITHRSA',
      Subject: { CommonName: 'root' },
    },
  });
  const clock = drivenClock(Date.now() + 60_000);
  const options = { region, certificateAuthorityArn: made, endpoint: moto };
  const upstream = await awsPcaUpstream(options, { clock, load });
  t.after(async () => upstream.close?.());
  const says = (what: RegExp) => assert.rejects(upstream.mint(request, hour, signal), fault('upstream/refused', what));
  await says(/is PENDING_CERTIFICATE; it has to be ACTIVE$/);

  const { Csr } = await ask('GetCertificateAuthorityCsr', { CertificateAuthorityArn: made });
  const { CertificateArn } = await ask('IssueCertificate', {
    CertificateAuthorityArn: made,
    Csr: Buffer.from(Csr),
    SigningAlgorithm: 'SHA512WITHRSA',
    TemplateArn: 'arn:aws:acm-pca:::template/RootCACertificate/V1',
    Validity: { Type: 'DAYS', Value: 300 },
  });
  const { Certificate } = await ask('GetCertificate', { CertificateAuthorityArn: made, CertificateArn });
  await ask('ImportCertificateAuthorityCertificate', {
    CertificateAuthorityArn: made,
    Certificate: Buffer.from(Certificate),
  });
  const { x509Authorities } = await upstream.state!(signal);
  assert.deepEqual(
    x509Authorities.map(({ certificate }) => certificate),
    pemDecode(Certificate, 'CERTIFICATE', 'root'),
  );
  // moto signs whatever it is given as a certificate of no authority.
  const minted = await upstream.mint(request, hour, signal);
  assert.throws(
    () => checkMinted(minted, { spki, trustDomain: td }, clock.now()),
    fault('upstream/refused', /gave a certificate that is no certificate authority/),
  );
  const flags = {
    'upstream-authority': 'aws-pca',
    'upstream-aws-pca-region': region,
    'upstream-aws-pca-certificate-authority-arn': made,
    'upstream-aws-pca-endpoint': moto,
  };
  await assert.rejects(testServer(t, { clock, flags, load }), /is no certificate authority/);

  await ask('UpdateCertificateAuthority', { CertificateAuthorityArn: made, Status: 'DISABLED' });
  await says(/is DISABLED; it has to be ACTIVE$/);
  const none = await awsPcaUpstream(
    { ...options, certificateAuthorityArn: arn.replace('eu-test-1', region) },
    { clock, load },
  );
  await assert.rejects(
    none.mint(request, hour, signal),
    fault('upstream/refused', /has no certificate authority "arn:.*" in region "eu-west-1"/),
  );
  const nowhere = await awsPcaUpstream({ ...options, endpoint: 'http://127.0.0.1:1' }, { clock, load });
  await assert.rejects(nowhere.mint(request, hour, signal), fault('upstream/unavailable', /cannot be reached/));
  for (const one of [none, nowhere]) await one.close?.();
});
