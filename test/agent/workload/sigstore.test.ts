import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { readAgentOptions } from '../../../agent/config.ts';
import { workloadAttestor } from '../../../agent/workload/attest.ts';
import { dockerMethod } from '../../../agent/workload/docker.ts';
import { imageVerifier } from '../../../agent/workload/image-signature.ts';
import { k8sMethod } from '../../../agent/workload/k8s.ts';
import { workloadMethods } from '../../../agent/workload/methods.ts';
import { sigstoreMethod } from '../../../agent/workload/sigstore.ts';
import { silentLog } from '../../../src/log.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { drivenClock } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { type FakeEngine, fakeEngine } from '../support/fake-engine.ts';
import { fakeKubelet } from '../support/fake-kubelet.ts';
import { type FakeSigstore, fakeSigstore, type SignWishes } from '../support/fake-sigstore.ts';
import { type ProcTree, procTree } from '../support/proc-tree.ts';

const noAbort = new AbortController().signal;
const id = '60b8b0b7ba5460a07b497c5659a7e2acf2fab0e2e72611f714e7055c2c4bba61';
const config = `sha256:${'ab'.repeat(32)}`;
const digest = `sha256:${'cd'.repeat(32)}`;
const issuer = 'https://token.actions.githubusercontent.com';
const subject = 'https://github.com/acme/web/.github/workflows/release.yaml@refs/heads/main';
const allowedIdentities = [`${issuer} https://github.com/acme/*`];

let sigstore: FakeSigstore;
before(async () => {
  sigstore = await fakeSigstore();
});
const base = mkdtempSync(join(tmpdir(), 'mu-sig-'));
after(() => rmSync(base, { recursive: true, force: true }));
let made = 0;

/** A place for signatures, with the root of the fake. */
function place(root: object = sigstore.trustedRoot) {
  const directory = join(base, String(made++));
  mkdirSync(directory);
  const trustedRootPath = join(directory, 'trusted_root.json');
  writeFileSync(trustedRootPath, JSON.stringify(root));
  return {
    options: { trustedRootPath, bundleDirectory: directory, allowedIdentities },
    put(name: string, content: unknown, of = digest) {
      const own = join(directory, of.replace(':', '-'));
      mkdirSync(own, { recursive: true });
      writeFileSync(join(own, name), typeof content === 'string' ? content : JSON.stringify(content));
    },
    takeAway: (of = digest) => rmSync(join(directory, of.replace(':', '-')), { recursive: true }),
  };
}
const selectorsOf = (type: string, bundle: any) => {
  const [entry] = bundle.verificationMaterial.tlogEntries;
  return [
    'verified',
    `-subject:${subject}`,
    `-issuer:${issuer}`,
    `-value:${bundle.dsseEnvelope.signatures[0].sig}`,
    `-log-id:${Buffer.from(entry.logId.keyId, 'base64').toString('hex')}`,
    `-log-index:${entry.logIndex}`,
    `-integrated-time:${entry.integratedTime}`,
    `-signed-entry-timestamp:${entry.inclusionPromise.signedEntryTimestamp}`,
  ].map((end) => `${type}:image-signature${end === 'verified' ? ':verified' : end}`);
};

async function dockerRig() {
  const engine = await fakeEngine();
  const tree = procTree();
  const workload = tree.put(`0::/docker/${id}`);
  engine.containers.set(id, {
    pid: workload,
    labels: { app: 'web' },
    digest: config,
    repoDigests: [`registry.example/web@${digest}`],
  });
  const docker = dockerMethod({ socketPath: engine.socketPath }, tree.cgroups);
  return {
    engine,
    tree,
    workload,
    docker,
    async close() {
      await engine.close();
      tree.remove();
    },
  };
}
const service = (engine: FakeEngine) => ({
  asked: () => engine.asked.length,
  set: (mood: 'silent' | 'failing' | 'well') => {
    engine.mood = mood;
  },
  open: engine.open,
});

workloadAttestorSuite('sigstore with docker', async () => {
  const rig = await dockerRig();
  const at = place();
  const bundle = await sigstore.sign(digest);
  at.put('a.sigstore.json', bundle);
  return {
    method: sigstoreMethod(at.options, [rig.docker], drivenClock()),
    workload: rig.workload,
    selectors: selectorsOf('docker', bundle),
    stranger: rig.tree.put('0::/user.slice/session-1.scope'),
    end: () => rig.tree.end(rig.workload),
    service: service(rig.engine),
    close: rig.close,
  };
});

workloadAttestorSuite('sigstore with k8s', async () => {
  const kubelet = await fakeKubelet();
  const tree: ProcTree = procTree();
  const uid = '2c48913c-b29f-11e7-9350-020968147796';
  const workload = tree.put(`0::/kubepods/burstable/pod${uid}/${id}`);
  const image = { name: 'web', id, image: 'registry.example/web:1', imageID: `registry.example/web@${digest}` };
  kubelet.pods = [{ name: 'web', uid, containers: [image] }];
  const options = {
    kubeletReadOnlyPort: kubelet.port,
    kubeletSecurePort: 1,
    kubeletCaPath: '/nowhere',
    skipKubeletVerification: false,
    useAnonymousAuthentication: false,
    tokenPath: '/nowhere',
    pollRetryInterval: 500,
    reloadInterval: 60_000,
    maxPollAttempts: 2,
    disableContainerSelectors: false,
    useApiServer: false,
    apiServer: { host: 'localhost', port: 1 },
    apiServerCaPath: '/nowhere',
  };
  const at = place();
  const bundle = await sigstore.sign(digest);
  at.put('a.json', bundle);
  const clock = drivenClock();
  return {
    method: sigstoreMethod(at.options, [k8sMethod(options, clock, tree.cgroups)], clock),
    workload,
    selectors: selectorsOf('k8s', bundle),
    stranger: tree.put('0::/user.slice/session-1.scope'),
    end: () => tree.end(workload),
    service: {
      asked: () => kubelet.asked,
      set: (mood) => {
        kubelet.mood = mood;
      },
      open: kubelet.open,
    },
    async close() {
      await kubelet.close();
      tree.remove();
    },
  };
});

const verify = (at: ReturnType<typeof place>, more = {}, of = digest) =>
  imageVerifier({ ...at.options, ...more }).verify(of);

test('a statement by somebody who is allowed, about this image, is a signature of it', async () => {
  const at = place();
  at.put('a.json', await sigstore.sign(digest));
  const [signature] = await verify(at);
  assert.deepEqual([signature?.subject, signature?.issuer, signature?.isAttestation], [subject, issuer, false]);
  assert.deepEqual(await verify(at, {}, config), [], 'of another image there is none');
});

const wrong: [what: string, wishes: SignWishes, spoil: (bundle: any) => unknown, says: RegExp][] = [
  [
    'another subject',
    { subject: 'https://github.com/evil/web' },
    (one) => one,
    /signer "https:\/\/github.com\/evil\/web"/,
  ],
  ['another issuer', { issuer: 'https://evil.example' }, (one) => one, /known by "https:\/\/evil.example"/],
  [
    'a subject that only contains the allowed one',
    { subject: 'https://evil.example/https://github.com/acme/web' },
    (one) => one,
    /is not one of those allowed/,
  ],
  [
    'a statement about another image',
    { subjects: [{ digest: { sha256: 'ef'.repeat(32) } }] },
    (one) => one,
    /another image/,
  ],
  ['a statement about nothing', { subjects: [] }, (one) => one, /another image/],
  ['a payload of another type', { payloadType: 'text/plain' }, (one) => one, /no signed statement/],
  [
    'a payload that was changed',
    {},
    (one) => {
      const text = Buffer.from(one.dsseEnvelope.payload, 'base64').toString().replace('Statement/v1', 'Statement/v2');
      return { ...one, dsseEnvelope: { ...one.dsseEnvelope, payload: Buffer.from(text).toString('base64') } };
    },
    /signature|hash/i,
  ],
  [
    'the signature of another payload',
    {},
    (one) => ({
      ...one,
      dsseEnvelope: { ...one.dsseEnvelope, signatures: [{ sig: Buffer.from('x').toString('base64'), keyid: '' }] },
    }),
    /signature|mismatch/i,
  ],
  [
    'no log entry',
    {},
    (one) => ({
      ...one,
      verificationMaterial: { ...one.verificationMaterial, tlogEntries: [] },
    }),
    /./,
  ],
  [
    'a log entry at another time',
    {},
    (one) => {
      const [entry] = one.verificationMaterial.tlogEntries;
      const moved = { ...entry, integratedTime: String(Number(entry.integratedTime) + 1) };
      return { ...one, verificationMaterial: { ...one.verificationMaterial, tlogEntries: [moved] } };
    },
    /./,
  ],
  ['no JSON', {}, () => '{', /JSON/],
  ['something else than a bundle', {}, () => ({ a: 1 }), /./],
  ['more bytes than are read', {}, () => `"${'x'.repeat(1024 * 1024)}"`, /longer than/],
];
for (const [what, wishes, spoil, says] of wrong) {
  test(`a bundle with ${what} is refused, with what is wrong`, async () => {
    const at = place();
    at.put('a.json', spoil(await sigstore.sign(digest, wishes)));
    await assert.rejects(
      verify(at),
      fault('peer/untrusted', new RegExp(`no signature of image ${digest}.*(${says.source})`, `s${says.flags}`)),
    );
  });
}

test('a bundle below another root is refused, and one that holds beside it counts', async () => {
  const other = await fakeSigstore();
  const at = place(other.trustedRoot);
  at.put('a.json', await sigstore.sign(digest));
  await assert.rejects(verify(at), fault('peer/untrusted'));
  at.put('b.json', await other.sign(digest));
  assert.equal((await verify(at)).length, 1);
});

test('a root that is replaced counts from then on; one that is none is a fault that names its file', async () => {
  const at = place((await fakeSigstore()).trustedRoot);
  at.put('a.json', await sigstore.sign(digest));
  const verifier = imageVerifier(at.options);
  await assert.rejects(verifier.verify(digest), fault('peer/untrusted'));
  writeFileSync(at.options.trustedRootPath, JSON.stringify(sigstore.trustedRoot, null, 1));
  assert.equal((await verifier.verify(digest)).length, 1);
  writeFileSync(at.options.trustedRootPath, '{');
  await assert.rejects(verifier.verify(digest), fault('config/invalid', /trusted_root.json" cannot be used/));
});

test('attestations say something of a signed image only', async (t: TestContext) => {
  const rig = await dockerRig();
  t.after(rig.close);
  const at = place();
  const attestation = await sigstore.sign(digest, { predicateType: 'https://slsa.dev/provenance/v1' });
  at.put('a.json', attestation);
  const method = sigstoreMethod(at.options, [rig.docker], drivenClock());
  assert.deepEqual(await method.attest(rig.workload, noAbort), []);
  at.put('b.json', await sigstore.sign(digest));
  const found = await method.attest(rig.workload, noAbort);
  assert.ok(found.includes('docker:image-attestations:verified' as never));
  assert.ok(!found.some((one) => one.includes(attestation.dsseEnvelope.signatures[0].sig)));
});

test('a signature that does not hold takes away no other selector, and one that comes or goes counts a minute later', async (t) => {
  const rig = await dockerRig();
  t.after(rig.close);
  const at = place();
  const clock = drivenClock();
  const attestor = workloadAttestor([rig.docker, sigstoreMethod(at.options, [rig.docker], clock)], {
    clock,
    log: silentLog,
  });
  const peer = { uid: 0, gid: 0, pid: rig.workload, alive: () => true, close() {} };
  const verified = async () => [...(await attestor.attest(peer))].includes('docker:image-signature:verified' as never);
  const has = async (label: boolean) =>
    assert.equal([...(await attestor.attest(peer))].includes('docker:label:app:web' as never), label);
  assert.equal(await verified(), false);
  at.put('a.json', await sigstore.sign(digest));
  await clock.advance(61_000);
  assert.equal(await verified(), true);
  at.put('a.json', '{');
  await clock.advance(61_000);
  assert.equal(await verified(), false);
  await has(true);
  at.takeAway();
  await clock.advance(61_000);
  assert.equal(await verified(), false);
});

test('an image that was built here and never pushed has no digest that anybody could have signed', async (t) => {
  const rig = await dockerRig();
  t.after(rig.close);
  rig.engine.containers.set(id, { pid: rig.workload, digest: config });
  const at = place();
  at.put('a.json', await sigstore.sign(config), config);
  assert.deepEqual(await sigstoreMethod(at.options, [rig.docker], drivenClock()).attest(rig.workload, noAbort), []);
});

test('the packages are asked for when there is something to verify, and missed by name', async () => {
  const at = place();
  const asked: string[] = [];
  const verifier = imageVerifier(at.options, async (name) => {
    asked.push(name);
    throw Object.assign(new Error('no'), { code: 'ERR_MODULE_NOT_FOUND' });
  });
  assert.deepEqual(await verifier.verify(digest), []);
  assert.deepEqual(asked, []);
  at.put('a.json', await sigstore.sign(digest));
  await assert.rejects(verifier.verify(digest), fault('config/invalid', /needs the package @sigstore\/verify/));
});

const least = { trustDomain: 'example.org', server: '127.0.0.1:1', insecureBootstrap: true };
const paths = {
  workloadAttestorsSigstoreTrustedRootPath: '/root.json',
  workloadAttestorsSigstoreBundleDirectory: '/signatures',
};

test('the agent has it beside the methods that know images', async () => {
  const { options } = await readAgentOptions({
    flags: {
      ...least,
      ...paths,
      workloadAttestorsSigstoreAllowedIdentities: 'a b',
      workloadAttestorsDockerSocketPath: '/d.sock',
    },
  });
  assert.deepEqual(
    workloadMethods(options, drivenClock()).map(({ name }) => name),
    ['unix', 'docker', 'sigstore'],
  );
});

for (const [identities, says] of [
  [[], /sigstore-allowed-identities: is empty/],
  [['only-an-issuer'], /"only-an-issuer" is not an issuer and a subject/],
] as const) {
  test(`identities ${JSON.stringify(identities)} are refused`, () =>
    assert.rejects(
      readAgentOptions({ flags: { ...least, ...paths, workloadAttestorsSigstoreAllowedIdentities: identities } }),
      says,
    ));
}
