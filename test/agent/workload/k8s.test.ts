import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { workloadAttestor } from '../../../agent/workload/attest.ts';
import { type K8sOptions, k8sMethod } from '../../../agent/workload/k8s.ts';
import type { WorkloadMethod } from '../../../agent/workload/methods.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { Fault } from '../../../src/errors.ts';
import { createLog } from '../../../src/log.ts';
import type { Clock } from '../../../src/run/clock.ts';
import { parseSelector, selectorSet } from '../../../src/spiffe/selector.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { type IssuedSvid, testAuthority } from '../../support/ca.ts';
import { type DrivenClock, drivenClock } from '../../support/clock.ts';
import { type FakeKubelet, type FakePod, fakeKubelet } from '../support/fake-kubelet.ts';
import { type ProcTree, procTree } from '../support/proc-tree.ts';

const noAbort = new AbortController().signal;
const uid = '2c48913c-b29f-11e7-9350-020968147796';
const uidUnder = uid.replaceAll('-', '_');
const otherUid = '72f7f152-440c-66ac-9084-e0fc1d8a910c';
const id = '9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961';
const other = 'e'.repeat(64);
const cgroup = `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uidUnder}.slice/cri-containerd-${id}.scope`;

const web: FakePod = {
  name: 'web-7d9c-x2',
  uid,
  labels: { app: 'web', 'app.kubernetes.io/part-of': 'shop' },
  owners: [{ kind: 'ReplicaSet', name: 'web-7d9c', uid: '11111111-2222-3333-4444-555555555555' }],
  containers: [
    { name: 'web', id, image: 'registry.example/web:1', imageID: 'registry.example/web@sha256:aa' },
    { name: 'proxy', id: other, image: 'envoy:1', imageID: 'envoy@sha256:bb' },
  ],
  init: [{ name: 'migrate', id: 'a'.repeat(64), image: 'registry.example/migrate:1', imageID: 'migrate@sha256:cc' }],
};
const ofPod = [
  'k8s:ns:shop',
  'k8s:sa:seller',
  'k8s:node-name:localhost',
  `k8s:pod-uid:${uid}`,
  'k8s:pod-name:web-7d9c-x2',
  'k8s:pod-image-count:2',
  'k8s:pod-init-image-count:1',
  'k8s:pod-image:registry.example/web:1',
  'k8s:pod-image:registry.example/web@sha256:aa',
  'k8s:pod-image:envoy:1',
  'k8s:pod-image:envoy@sha256:bb',
  'k8s:pod-init-image:registry.example/migrate:1',
  'k8s:pod-init-image:migrate@sha256:cc',
  'k8s:pod-label:app:web',
  'k8s:pod-label:app.kubernetes.io/part-of:shop',
  'k8s:pod-owner:ReplicaSet:web-7d9c',
  'k8s:pod-owner-uid:ReplicaSet:11111111-2222-3333-4444-555555555555',
];
const ofContainer = [
  'k8s:container-name:web',
  'k8s:container-image:registry.example/web:1',
  'k8s:container-image:registry.example/web@sha256:aa',
];
const said = [...ofPod, ...ofContainer].sort();

const directory = mkdtempSync(join(tmpdir(), 'mu-k8s-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const ca = testAuthority({ now: Date.now() });
const stranger = testAuthority({ now: Date.now() });
const pem = (der: Buffer): string => pemEncode('CERTIFICATE', der);
const keyPem = ({ key }: IssuedSvid): string => {
  const held = key as unknown as { exportPkcs8(): Buffer };
  return String(
    createPrivateKey({ key: held.exportPkcs8(), format: 'der', type: 'pkcs8' }).export({
      format: 'pem',
      type: 'pkcs8',
    }),
  );
};
const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};
const served = ca.issue({ dnsNames: ['localhost'] });
const client = ca.issue({});
const tls = { cert: pem(served.der), key: keyPem(served), ca: pem(ca.der) };
const paths = {
  kubeletCaPath: file('ca.pem', pem(ca.der)),
  tokenPath: file('token', 'first.token\n'),
  certificatePath: file('client.pem', pem(client.der)),
  privateKeyPath: file('client.key', keyPem(client)),
};

interface Rig {
  kubelet: FakeKubelet;
  tree: ProcTree;
  clock: DrivenClock;
  /** Timers between two polls that wait now. */
  polling: Set<symbol>;
  options: K8sOptions;
  close(): Promise<void>;
}

async function rig(more: Partial<K8sOptions> = {}, isPlain = false): Promise<Rig> {
  const kubelet = await fakeKubelet(isPlain ? undefined : tls);
  kubelet.pods = [web];
  kubelet.wants = { token: 'first.token' };
  const tree = procTree();
  const options: K8sOptions = {
    nodeName: 'localhost',
    kubeletSecurePort: kubelet.port,
    kubeletCaPath: paths.kubeletCaPath,
    tokenPath: paths.tokenPath,
    skipKubeletVerification: false,
    useAnonymousAuthentication: false,
    maxPollAttempts: 60,
    pollRetryInterval: 500,
    reloadInterval: 60_000,
    disableContainerSelectors: false,
    useApiServer: false,
    apiServer: { host: 'localhost', port: kubelet.port },
    apiServerCaPath: paths.kubeletCaPath,
    ...more,
    ...(isPlain ? { kubeletReadOnlyPort: kubelet.port } : {}),
  };
  return {
    kubelet,
    tree,
    clock: drivenClock(),
    polling: new Set(),
    options,
    async close() {
      await kubelet.close();
      tree.remove();
    },
  };
}

async function rigFor(test: TestContext, more: Partial<K8sOptions> = {}): Promise<Rig> {
  const one = await rig(more);
  test.after(() => one.close());
  return one;
}
const methodOf = ({ options, clock, polling, tree }: Rig) =>
  k8sMethod(options, watched(clock, options.pollRetryInterval, polling), tree.cgroups);

for (const [name, more, wants, isPlain] of [
  ['a token', {}, { token: 'first.token' }, false],
  [
    'a client certificate',
    { certificatePath: paths.certificatePath, privateKeyPath: paths.privateKeyPath },
    'certificate',
    false,
  ],
  ['nothing to show', { useAnonymousAuthentication: true }, 'anything', false],
  [
    'any certificate of kubelet',
    { skipKubeletVerification: true, kubeletCaPath: '/nowhere' },
    { token: 'first.token' },
    false,
  ],
  ['the read-only port', { kubeletCaPath: '/nowhere', tokenPath: '/nowhere' }, 'anything', true],
] as const) {
  workloadAttestorSuite(`k8s with ${name}`, async () => {
    const one = await rig(more, isPlain);
    one.kubelet.wants = wants;
    const workload = one.tree.put(cgroup);
    return {
      method: methodOf(one),
      workload,
      selectors: said,
      stranger: one.tree.put('0::/user.slice/user-1000.slice/session-1.scope'),
      end: () => one.tree.end(workload),
      service: {
        asked: () => one.kubelet.asked,
        set: (mood) => {
          one.kubelet.mood = mood;
        },
        open: one.kubelet.open,
      },
      close: one.close,
    };
  });
}

for (const [name, line] of [
  ['cgroupfs', `0::/kubepods/burstable/pod${uid}/${id}`],
  ['cgroupfs, guaranteed, with a cgroup of its own below', `0::/kubepods/pod${uid}/${id}/init.scope`],
  ['v1', `4:memory:/kubepods/besteffort/pod${uid}/${id}\n1:name=systemd:/kubepods/besteffort/pod${uid}/${id}\n0::/`],
  ['CRI-O', `0::/kubepods.slice/kubepods-pod${uidUnder}.slice/crio-${id}.scope/container`],
  [
    'kind',
    `0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${uidUnder}.slice/cri-containerd-${id}.scope`,
  ],
  ['kind, cgroupfs', `0::/kubelet/kubepods/besteffort/pod${uid}/${id}`],
  [
    'containerd with both drivers',
    `1:cpu:/system.slice/containerd.service/kubepods-besteffort-pod${uidUnder}.slice:cri-containerd:${id}`,
  ],
  ['the cgroup namespace of a pod beside it', `0::/../../pod${uid}/${id}`],
  [
    'the cgroup namespace of a pod of another class',
    `0::/../../../kubepods-burstable.slice/kubepods-burstable-pod${uidUnder}.slice/cri-containerd-${id}.scope`,
  ],
  ['the cgroup namespace of the same pod', `0::/../crio-${id}.scope`],
] as const) {
  test(`a container of a pod is found by ${name}`, async (t) => {
    const one = await rigFor(t);
    assert.deepEqual(selectorSet(await methodOf(one).attest(one.tree.put(...line.split('\n')), noAbort)), said);
  });
}

for (const line of [
  `0::/user.slice/user-1000.slice/user@1000.service/kubepods/burstable/pod${uid}/${id}`,
  `0::/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-burstable-pod${uidUnder}.slice/cri-containerd-${id}.scope`,
  `0::/../../../../user.slice/user-1000.slice/user@1000.service/pod${uid}/${id}`,
  `0::/system.slice/evil.service/kubepods-besteffort-pod${uidUnder}.slice:cri-containerd:${id}`,
  `0::/docker/${other}/kubepods/burstable/pod${uid}/${id}`,
  `0::/kubepods/burstable/pod${uid}/crio-conmon-${id}`,
  `0::/kubepods/burstable/pod${uid}/${id}0`,
  `0::/kubepods/burstable/pod${uid}`,
  `0::/kubepods/${id}`,
  `0::/kubepodsX/pod${uid}/${id}`,
]) {
  test(`not where kubelet puts containers, so no pod's: ${line}`, async (t) => {
    const one = await rigFor(t);
    assert.deepEqual(await methodOf(one).attest(one.tree.put(line), noAbort), []);
    assert.equal(one.kubelet.asked, 0);
  });
}

test('a pod that makes cgroups below its own stays the pod it is', async (t) => {
  const one = await rigFor(t);
  const mine = { ...web, name: 'mine', uid: otherUid, containers: [{ ...web.containers![0]!, id: 'c'.repeat(64) }] };
  one.kubelet.pods = [web, mine];
  const below = `0::/kubepods/pod${otherUid}/${'c'.repeat(64)}/kubepods/pod${uid}/${id}`;
  const found = await methodOf(one).attest(one.tree.put(below), noAbort);
  assert.ok(found.includes('k8s:pod-name:mine' as never) && !found.includes('k8s:pod-name:web-7d9c-x2' as never));
});

test('a container that kubelet lists in another pod than its cgroup is of gives nothing', async (t) => {
  const one = await rigFor(t);
  await assert.rejects(
    methodOf(one).attest(one.tree.put(`0::/kubepods/pod${otherUid}/${id}`), noAbort),
    (fault: Fault) => fault.code === 'caller/denied',
  );
});

test('an agent on a node that is itself a container reads paths from the node on', async (t) => {
  const one = await rigFor(t);
  const node = `/docker/${'b'.repeat(64)}`;
  const inner = procTree(`0::${node}/kubepods/besteffort/pod${otherUid}/${'c'.repeat(64)}`);
  t.after(inner.remove);
  const pid = inner.put(`0::${node}/kubepods/burstable/pod${uid}/${id}`);
  assert.deepEqual(selectorSet(await k8sMethod(one.options, one.clock, inner.cgroups).attest(pid, noAbort)), said);
});

/** Moves the clock on until it is done: a poll's time whenever a poll is what is waited for. */
async function pass<T>(one: Rig, work: Promise<T>): Promise<T> {
  let done = false;
  const end = (): void => {
    done = true;
  };
  work.then(end, end);
  while (!done) {
    if (one.polling.size > 0) await one.clock.advance(one.options.pollRetryInterval);
    await new Promise(setImmediate);
  }
  return work;
}

/** A clock that also tells which timers of a poll's length are waiting. */
function watched(clock: DrivenClock, interval: number, polling: Set<symbol>): Clock {
  return {
    now: clock.now,
    after(ms, fire) {
      if (ms !== interval) return clock.after(ms, fire);
      const timer = Symbol();
      polling.add(timer);
      const cancel = clock.after(ms, () => {
        polling.delete(timer);
        fire();
      });
      return () => {
        polling.delete(timer);
        cancel();
      };
    },
  };
}

test('a container that kubelet does not list yet is waited for', async (t) => {
  const one = await rigFor(t);
  one.kubelet.pods = [{ ...web, containers: web.containers!.map(({ id: _, ...rest }) => rest) }];
  const work = methodOf(one).attest(one.tree.put(cgroup), noAbort);
  while (one.kubelet.asked < 1) await new Promise(setImmediate);
  one.kubelet.pods = [web];
  assert.deepEqual(selectorSet(await pass(one, work)), said);
  assert.equal(one.kubelet.asked, 2);
});

test('it is waited for so many polls and no more: a pod deleted between two reads', async (t) => {
  const one = await rigFor(t, { maxPollAttempts: 5 });
  const method = methodOf(one);
  assert.deepEqual(selectorSet(await method.attest(one.tree.put(cgroup), noAbort)), said);
  one.kubelet.pods = [];
  one.clock.jump(60_000);
  one.kubelet.asked = 0;
  await assert.rejects(
    pass(one, method.attest(one.tree.put(cgroup), noAbort)),
    (fault: Fault) => fault.code === 'thing/missing' && /asked 5 times/.test(fault.message),
  );
  assert.equal(one.kubelet.asked, 5);
  assert.equal(one.clock.waiting, 0);
});

test('a process that ends while its container is waited for is not waited for', async (t) => {
  const one = await rigFor(t);
  one.kubelet.pods = [];
  const pid = one.tree.put(cgroup);
  const work = methodOf(one).attest(pid, noAbort);
  while (one.kubelet.asked < 1) await new Promise(setImmediate);
  one.tree.end(pid);
  await assert.rejects(
    pass(one, work),
    (fault: Fault) => fault.code === 'thing/missing' && /is gone/.test(fault.message),
  );
});

test('with the selectors of containers off, a pod is known before its container is listed', async (t) => {
  const one = await rigFor(t, { disableContainerSelectors: true });
  const method = methodOf(one);
  assert.deepEqual(selectorSet(await method.attest(one.tree.put(cgroup), noAbort)), [...ofPod].sort());
  const fresh = one.tree.put(`0::/kubepods/pod${uid}/${'1'.repeat(64)}`);
  assert.deepEqual(selectorSet(await method.attest(fresh, noAbort)), [...ofPod].sort());
});

test('a hundred processes at once are one list, and one that gives up takes it from nobody', async (t) => {
  const one = await rigFor(t);
  const method = methodOf(one);
  const leaving = new AbortController();
  const left = method.attest(one.tree.put(cgroup), leaving.signal);
  const all = Array.from({ length: 100 }, () => method.attest(one.tree.put(cgroup), noAbort));
  leaving.abort(new Fault('peer/unavailable', 'too late'));
  await assert.rejects(left, (fault: Fault) => fault.message === 'too late');
  for (const found of await Promise.all(all)) assert.deepEqual(selectorSet(found), said);
  assert.equal(one.kubelet.asked, 1);
});

test('what was found of a pod counts for a minute, since its labels may change; of another process until it changes', async (t) => {
  const one = await rigFor(t);
  const method = methodOf(one);
  const [pod, host] = [one.tree.put(cgroup), one.tree.put('0::/system.slice/sshd.service')];
  const [before, hostBefore] = [method.fingerprint(pod), method.fingerprint(host)];
  one.clock.jump(60_000);
  assert.notEqual(method.fingerprint(pod), before);
  assert.equal(method.fingerprint(host), hostBefore);
  await method.attest(pod, noAbort);
  one.kubelet.pods = [{ ...web, labels: { app: 'web', canary: 'yes' } }];
  one.clock.jump(60_000);
  assert.ok((await method.attest(pod, noAbort)).includes('k8s:pod-label:canary:yes' as never));
});

test('a token that Kubernetes has changed is the one that is shown', async (t) => {
  const tokenPath = file('changing', 'first.token\n');
  const one = await rigFor(t, { tokenPath });
  const method = methodOf(one);
  await method.attest(one.tree.put(cgroup), noAbort);
  one.clock.jump(60_000);
  one.kubelet.wants = { token: 'second.token' };
  await assert.rejects(
    method.attest(one.tree.put(cgroup), noAbort),
    (fault: Fault) => fault.code === 'peer/failed' && /\(401\)/.test(fault.message) && !/token/.test(fault.message),
  );
  file('changing', 'second.token\n');
  assert.deepEqual(selectorSet(await method.attest(one.tree.put(cgroup), noAbort)), said);
});

test('a root that was changed is read again: after a failure at once, else within the interval', async (t) => {
  const kubeletCaPath = file('changing-ca', pem(stranger.der));
  const one = await rigFor(t, { kubeletCaPath });
  const method = methodOf(one);
  await assert.rejects(method.attest(one.tree.put(cgroup), noAbort), (fault: Fault) => fault.code === 'peer/untrusted');
  file('changing-ca', pem(ca.der));
  await method.attest(one.tree.put(cgroup), noAbort);
  file('changing-ca', pem(stranger.der));
  one.clock.jump(59_000);
  await method.attest(one.tree.put(cgroup), noAbort);
  one.clock.jump(1_000);
  await assert.rejects(method.attest(one.tree.put(cgroup), noAbort), (fault: Fault) => fault.code === 'peer/untrusted');
});

test('a certificate of kubelet for another name is refused before anything is shown', async (t) => {
  const one = await rigFor(t, { nodeName: '127.0.0.1' });
  await assert.rejects(
    methodOf(one).attest(one.tree.put(cgroup), noAbort),
    (fault: Fault) => fault.code === 'peer/untrusted',
  );
  assert.equal(one.kubelet.asked, 0);
});

for (const [name, more, code] of [
  ['no root', { kubeletCaPath: '/nowhere/ca.crt' }, 'config/invalid'],
  ['no token', { tokenPath: '/nowhere/token' }, 'config/invalid'],
  ['a token that would break the header', { tokenPath: file('bad', 'a\r\nhost: b') }, 'config/invalid'],
  ['nobody listening', { kubeletSecurePort: 1 }, 'peer/unavailable'],
] as const) {
  test(`${name} is a fault`, async (t) => {
    const one = await rigFor(t, more);
    await assert.rejects(methodOf(one).attest(one.tree.put(cgroup), noAbort), (fault: Fault) => fault.code === code);
  });
}

test('an answer that is no list of pods is a fault', async (t) => {
  const one = await rigFor(t);
  one.kubelet.mood = 'strange';
  await assert.rejects(
    methodOf(one).attest(one.tree.put(cgroup), noAbort),
    (fault: Fault) => fault.code === 'peer/failed' && /PodList/.test(fault.message),
  );
});

test('a kubelet that is silent is given up after ten seconds, whoever waits', async (t) => {
  const one = await rigFor(t);
  one.kubelet.mood = 'silent';
  const work = methodOf(one).attest(one.tree.put(cgroup), noAbort);
  work.catch(() => {});
  while (one.kubelet.asked < 1) await new Promise(setImmediate);
  await one.clock.advance(10_000);
  await assert.rejects(work, (fault: Fault) => fault.code === 'peer/unavailable' && /10000 ms/.test(fault.message));
  while ((await one.kubelet.open()) > 0) await new Promise(setImmediate);
});

test('a kubelet whose certificate does not hold takes the selectors of pods and no others, is told of once, and no caller waits', async (t) => {
  const one = await rigFor(t, { kubeletCaPath: file('wrong-ca', pem(stranger.der)) });
  const lines: string[] = [];
  const log = createLog({ level: 'info', format: 'text', clock: one.clock, write: (line) => lines.push(line) });
  const always: WorkloadMethod = {
    name: 'always',
    deadline: 1_000,
    fingerprint: () => '',
    attest: async () => [parseSelector('unix:uid:1000')],
  };
  const attestor = workloadAttestor([always, methodOf(one)], { clock: one.clock, log });
  const caller = (...lines: string[]) => ({ pid: one.tree.put(...lines), alive: () => true, close() {} });
  const pods = await Promise.all(Array.from({ length: 20 }, () => attestor.attest(caller(cgroup))));
  assert.deepEqual(new Set(pods.flat()), new Set(['unix:uid:1000']));
  assert.deepEqual(await attestor.attest(caller('0::/user.slice/session-1.scope')), ['unix:uid:1000']);
  assert.equal(one.kubelet.asked, 0, 'nothing was shown to it');
  assert.equal(lines.length, 1, lines.join(''));
  assert.match(lines[0]!, /workload attestation failed .*kubelet at .* did not prove itself/);
});

test('BR-6 the sandbox of a pod, whose container kubelet never lists, is not the workload: it gets nothing of the pod', async (t) => {
  const one = await rigFor(t, { maxPollAttempts: 2 });
  const pause = one.tree.put(cgroup.replace(id, 'f'.repeat(64)));
  await assert.rejects(
    pass(one, methodOf(one).attest(pause, noAbort)),
    (fault: Fault) => fault.code === 'thing/missing' && /does not list the container/.test(fault.message),
  );
});
