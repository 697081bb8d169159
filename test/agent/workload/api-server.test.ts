/** Pods where there is no kubelet to ask, and labels of namespaces: both from the API server. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { readAgentOptions } from '../../../agent/config.ts';
import { workloadAttestor } from '../../../agent/workload/attest.ts';
import { type K8sOptions, k8sMethod } from '../../../agent/workload/k8s.ts';
import { workloadMethods } from '../../../agent/workload/methods.ts';
import { namespaceMethod } from '../../../agent/workload/namespace.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import type { HeldKey } from '../../../src/keys/key-store.ts';
import { silentLog } from '../../../src/log.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock, until } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { type FakeApiServer, fakeApiServer } from '../support/fake-api-server.ts';
import type { FakePod } from '../support/fake-kubelet.ts';
import { procTree } from '../support/proc-tree.ts';

const noAbort = new AbortController().signal;
const uid = '2c48913c-b29f-11e7-9350-020968147796';
const id = '9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961';
const cgroup = `0::/kubepods/burstable/pod${uid}/${id}`;
const image = { name: 'web', id, image: 'registry.example/web:1', imageID: 'registry.example/web@sha256:aa' };
const web: FakePod = { name: 'web-x2', uid, labels: { app: 'web' }, containers: [image] };
const ofPod = [
  'k8s:ns:shop',
  'k8s:sa:seller',
  'k8s:node-name:localhost',
  `k8s:pod-uid:${uid}`,
  'k8s:pod-name:web-x2',
  'k8s:pod-image-count:1',
  'k8s:pod-init-image-count:0',
  'k8s:pod-image:registry.example/web:1',
  'k8s:pod-image:registry.example/web@sha256:aa',
  'k8s:pod-label:app:web',
  'k8s:container-name:web',
  'k8s:container-image:registry.example/web:1',
  'k8s:container-image:registry.example/web@sha256:aa',
];
const labels = { 'kubernetes.io/metadata.name': 'shop', tier: 'a:b' };
const ofNamespace = ['k8s:ns-label:kubernetes.io/metadata.name:shop', 'k8s:ns-label:tier:a:b'];

const directory = mkdtempSync(join(tmpdir(), 'mu-api-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};
const ca = testAuthority({ now: Date.now() });
const served = ca.issue({ dnsNames: ['localhost'] });
const key = createPrivateKey({ key: (served.key as HeldKey).exportPkcs8(), format: 'der', type: 'pkcs8' });
const tls = { cert: pemEncode('CERTIFICATE', served.der), key: String(key.export({ format: 'pem', type: 'pkcs8' })) };
const tokenPath = file('token', 'first.token\n');
const apiServerCaPath = file('ca.pem', pemEncode('CERTIFICATE', ca.der));

async function rig(more: Partial<K8sOptions> = {}) {
  const server = await fakeApiServer(tls);
  server.pods.set('worker-1', [web]);
  server.namespaces.set('shop', labels);
  const tree = procTree();
  const clock = drivenClock();
  const options: K8sOptions = {
    nodeName: 'worker-1',
    useApiServer: true,
    apiServer: { host: 'localhost', port: server.port },
    apiServerCaPath,
    tokenPath,
    kubeletSecurePort: 1,
    kubeletCaPath: '/nowhere',
    skipKubeletVerification: false,
    useAnonymousAuthentication: false,
    maxPollAttempts: 2,
    pollRetryInterval: 500,
    reloadInterval: 60_000,
    disableContainerSelectors: false,
    ...more,
  };
  const k8s = k8sMethod(options, clock, tree.cgroups);
  return {
    server,
    tree,
    clock,
    options,
    k8s,
    namespace: namespaceMethod(options, k8s, clock),
    workload: tree.put(cgroup),
    async close() {
      await server.close();
      tree.remove();
    },
  };
}
async function rigFor(t: TestContext, more: Partial<K8sOptions> = {}) {
  const one = await rig(more);
  t.after(() => one.close());
  return one;
}
const service = (server: FakeApiServer) => ({
  asked: () => server.asked.length,
  set: (mood: 'silent' | 'failing' | 'well') => {
    server.mood = mood;
  },
  open: server.open,
});

for (const [name, methodOf, selectors] of [
  ['k8s with the API server', ({ k8s }: Awaited<ReturnType<typeof rig>>) => k8s, ofPod],
  ['labels of namespaces', ({ namespace }: Awaited<ReturnType<typeof rig>>) => namespace, ofNamespace],
] as const) {
  workloadAttestorSuite(name, async () => {
    const one = await rig();
    return {
      method: methodOf(one),
      workload: one.workload,
      selectors,
      stranger: one.tree.put('0::/user.slice/session-1.scope'),
      end: () => one.tree.end(one.workload),
      service: service(one.server),
      close: one.close,
    };
  });
}

test('it asks for the pods of its own node alone, and for a container that is listed not again for some seconds', async (t) => {
  const { server, k8s, workload, clock, tree } = await rigFor(t);
  await k8s.attest(workload, noAbort);
  await clock.advance(4_000);
  await k8s.attest(workload, noAbort);
  assert.deepEqual(server.asked, ['/api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1']);
  const other = 'e'.repeat(64);
  server.pods.set('worker-1', [web, { name: 'new', uid: other.slice(0, 32), containers: [{ ...image, id: other }] }]);
  const waiting = k8s.attest(tree.put(`0::/kubepods/pod${other.slice(0, 32)}/${other}`), noAbort);
  await clock.advance(600);
  assert.ok((await waiting).includes('k8s:pod-name:new' as never), 'one that is not there yet is looked for at once');
  server.pods.set('worker-1', []);
  server.pods.set('worker-2', [web]);
  await clock.advance(10_000);
  const gone = k8s.attest(workload, noAbort);
  gone.catch(() => {});
  await until(() => server.asked.length >= 3);
  await clock.advance(600);
  await assert.rejects(gone, fault('thing/missing', /the API server does not list the container/));
});

test('a static pod is known by the uid that its node gave it; one of another pod is refused', async (t) => {
  const { server, k8s, tree } = await rigFor(t);
  const hash = 'a'.repeat(32);
  server.pods.set('worker-1', [{ ...web, annotations: { 'kubernetes.io/config.mirror': hash } }]);
  assert.ok((await k8s.attest(tree.put(`0::/kubepods/burstable/pod${hash}/${id}`), noAbort)).length > 0);
  await assert.rejects(
    k8s.attest(tree.put(`0::/kubepods/burstable/pod${'b'.repeat(32)}/${id}`), noAbort),
    fault('caller/denied', /one pod and in a container of another/),
  );
});

test('the labels of a namespace count for the reload interval, and are asked for once for all its pods', async (t) => {
  const { server, namespace, workload, clock } = await rigFor(t);
  const asked = () => server.asked.filter((url) => url.includes('namespaces')).length;
  await namespace.attest(workload, noAbort);
  server.namespaces.set('shop', { tier: 'new' });
  assert.deepEqual([...(await namespace.attest(workload, noAbort))].sort(), ofNamespace);
  assert.equal(asked(), 1);
  await clock.advance(61_000);
  assert.deepEqual(await namespace.attest(workload, noAbort), ['k8s:ns-label:tier:new']);
  assert.equal(asked(), 2);
});

test('a namespace that cannot be shown takes away its labels and nothing else', async (t) => {
  const { server, k8s, namespace, workload, clock } = await rigFor(t);
  server.namespaces.clear();
  const attestor = workloadAttestor([k8s, namespace], { clock, log: silentLog });
  const peer = { uid: 0, gid: 0, pid: workload, alive: () => true, close() {} };
  assert.deepEqual([...(await attestor.attest(peer))].sort(), [...ofPod].sort());
  await assert.rejects(namespace.attest(workload, noAbort), fault('peer/failed', /404 for namespace "shop"/));
});

test('a token that is not its own is refused with what to do, and read anew', async (t) => {
  const { server, k8s, namespace, workload } = await rigFor(t);
  await k8s.attest(workload, noAbort);
  server.token = 'second.token';
  await assert.rejects(
    namespace.attest(workload, noAbort),
    (error: { code: string; hint: string }) => error.code === 'peer/failed' && /get namespaces/.test(error.hint),
  );
  writeFileSync(tokenPath, 'second.token');
  t.after(() => writeFileSync(tokenPath, 'first.token'));
  assert.equal((await namespace.attest(workload, noAbort)).length, 2);
});

test('a server that another authority vouches for is not believed', async (t) => {
  const stranger = testAuthority({ now: Date.now() });
  const { k8s, namespace, workload } = await rigFor(t, {
    apiServerCaPath: file('other.pem', pemEncode('CERTIFICATE', stranger.der)),
  });
  for (const method of [k8s, namespace])
    await assert.rejects(
      method.attest(workload, noAbort),
      fault('peer/untrusted', /the API server .* did not prove itself/),
    );
});

const least = { trustDomain: 'example.org', server: '127.0.0.1:1', insecureBootstrap: true };
test('the options: labels are a method beside k8s, and the API server needs the name of the node', async () => {
  const flags = { ...least, workloadAttestorsK8sNamespaceLabels: true, workloadAttestorsK8sNodeName: 'worker-1' };
  const { options } = await readAgentOptions({ flags });
  assert.deepEqual(
    workloadMethods(options, drivenClock()).map(({ name }) => name),
    ['unix', 'k8s', 'namespace'],
  );
  await assert.rejects(
    readAgentOptions({ flags: { ...least, workloadAttestorsK8sUseApiServer: true } }),
    /nodeName: is needed with useApiServer/,
  );
});
