/** Upstream `cert-manager`, over real TLS to a fake of the API of Kubernetes. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readServerOptions } from '../../../server/config.ts';
import { certManagerUpstream } from '../../../server/upstream/kubernetes-issuer.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { trustDomainId } from '../../../src/spiffe/id.ts';
import { upstreamSuite } from '../../suites/upstream.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock, settle } from '../../support/clock.ts';
import { fakeCertManager } from '../../support/fake-kubernetes-issuer.ts';
import { fault } from '../../support/fault.ts';
import { td, testServer } from '../../support/server.ts';

const signal = new AbortController().signal;
const hour = 3_600_000;

async function under(options: { intermediate?: boolean; withBundle?: boolean } = {}) {
  const clock = drivenClock();
  const fake = await fakeCertManager(clock);
  const bundleFile = options.withBundle ? join(fake.caFile, '..', 'roots.pem') : undefined;
  async function rotate(): Promise<void> {
    fake.root = testAuthority({ now: clock.now() });
    fake.issuer = options.intermediate ? fake.root.intermediate() : fake.root;
    if (bundleFile !== undefined) await writeFile(bundleFile, pemEncode('CERTIFICATE', fake.root.der));
  }
  await rotate();
  fake.tellsRoot = !options.withBundle;
  const { address, caFile, tokenFile } = fake;
  const upstream = certManagerUpstream(
    {
      ...{ namespace: 'identity', issuer: 'upper', issuerKind: 'Issuer', issuerGroup: 'cert-manager.io' },
      ...{ address, caFile, tokenFile },
      ...(bundleFile !== undefined && { bundleFile }),
    },
    { clock },
  );
  const flags = {
    'upstream-authority': 'cert-manager',
    'upstream-cert-manager-namespace': 'identity',
    'upstream-cert-manager-issuer': 'upper',
    'upstream-cert-manager-address': address,
    'upstream-cert-manager-ca-file': caFile,
    'upstream-cert-manager-token-file': tokenFile,
    ...(bundleFile !== undefined && { 'upstream-cert-manager-bundle-file': bundleFile }),
  };
  async function close(): Promise<void> {
    await upstream.close?.();
    await fake.close();
  }
  return { clock, fake, upstream, flags, rotate, close };
}

upstreamSuite('cert-manager (a fake Kubernetes), a root', () => under());
upstreamSuite('cert-manager (a fake Kubernetes), an intermediate', () => under({ intermediate: true }));
upstreamSuite('cert-manager (a fake Kubernetes), its root in a file', () =>
  under({ intermediate: true, withBundle: true }),
);

const request = () => makeCsr(generateKey('ec-p256').privateKey, { uri: trustDomainId(td), authority: true });
async function opened(t: TestContext) {
  const found = await under();
  t.after(found.close);
  return found;
}

test('a request that waits to be approved is found again by its key, and taken away when it is signed', async (t) => {
  const { clock, fake, upstream } = await opened(t);
  const csr = request();
  fake.mood = 'wait';
  const waiting = async () => {
    let over = false;
    const outcome = upstream.mint(csr, hour, signal).finally(() => {
      over = true;
    });
    outcome.catch(() => {});
    for (let step = 0; step < 1000 && !over; step++) {
      await clock.advance(100);
      await settle(10);
    }
    return outcome;
  };
  await assert.rejects(
    waiting(),
    fault('upstream/unavailable', /in namespace "identity" is not ready: Waiting for approval/),
  );
  await assert.rejects(waiting(), fault('upstream/unavailable', /not ready/));
  assert.equal(fake.made.length, 1);
  fake.mood = 'sign';
  assert.equal((await upstream.mint(csr, hour, signal)).chain.length, 2);
  assert.equal(fake.requests.size, 0);
});

test('one that is denied is told in its words, taken away, and asked for anew', async (t) => {
  const { fake, upstream } = await opened(t);
  const csr = request();
  fake.mood = { denies: 'no authorities on Fridays' };
  await assert.rejects(
    upstream.mint(csr, hour, signal),
    fault('upstream/refused', /issuer "upper" of cert-manager refuses: Denied, no authorities on Fridays/),
  );
  assert.equal(fake.requests.size, 0);
  fake.mood = 'sign';
  await upstream.mint(csr, hour, signal);
  assert.equal(fake.made.length, 2);
});

test('what is wrong with Kubernetes: a sentence each, and a token that was rotated is read', async (t) => {
  const { fake, upstream, flags, clock } = await opened(t);
  const says = (status: number, what: RegExp) => {
    fake.status = status;
    return assert.rejects(upstream.mint(request(), hour, signal), what);
  };
  await says(403, /the API of Kubernetes refuses a CertificateRequest in namespace "identity"/);
  await says(404, /has no cert-manager, or no namespace "identity"/);
  await says(503, /the API of Kubernetes at "https:\/\/localhost:\d+" failed with status 503/);
  fake.status = undefined;
  await upstream.mint(request(), hour, signal);
  await fake.newToken();
  await upstream.mint(request(), hour, signal);
  fake.tellsRoot = false;
  fake.issuer = fake.root.intermediate();
  await assert.rejects(upstream.mint(request(), hour, signal), fault('upstream/refused', /does not tell its root/));

  // Another's certificate is not believed, whatever it answers.
  const stranger = await fakeCertManager(clock);
  t.after(stranger.close);
  const elsewhere = { ...flags, 'upstream-cert-manager-address': stranger.address };
  await assert.rejects(testServer(t, { clock, flags: elsewhere }), /cannot be reached/);
  assert.equal(stranger.made.length, 0);
});

test('a name that is none in Kubernetes is refused before it is a part of an address', async () => {
  const flags = {
    trustDomain: td,
    'upstream-authority': 'cert-manager',
    'upstream-cert-manager-namespace': '../secrets',
    'upstream-cert-manager-issuer': 'upper',
  };
  await assert.rejects(readServerOptions({ flags }), /"\.\.\/secrets" is not a name in Kubernetes/);
});
