/** Kubernetes references of the SPIFFE Broker API: pods of this node as a kubelet lists them, here one that is a fake. */
import assert from 'node:assert/strict';
import { realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Fault, Status } from '../../src/errors.ts';
import { type FakePod, fakeKubelet } from '../agent/support/fake-kubelet.ts';
import { connectBroker, podReference, svidOf } from '../support/broker.ts';
import { startPair } from '../support/pair.ts';

const brokerId = 'spiffe://example.org/broker';
const uid = 'a1b2c3d4-e5f6-7890-abcd-ef1234567890';
const otherUid = 'b1b2c3d4-e5f6-7890-abcd-ef1234567890';
const key = { namespace: 'shop', name: 'web-0' };
const container = { name: 'web', id: 'a'.repeat(64), image: 'web:1', imageID: 'web@sha256:aa' };
const web: FakePod = { name: 'web-0', uid, labels: { app: 'web' }, containers: [container] };
const streams = ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'];

async function rig(t: TestContext, more: Readonly<Record<string, unknown>> = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'mu-bk-'));
  t.after(() => rm(directory, { recursive: true }));
  const kubelet = await fakeKubelet();
  t.after(() => kubelet.close());
  kubelet.pods = [web];
  const path = join(directory, 'broker.sock');
  const pair = await startPair(t, {
    agent: {
      brokerSocket: path,
      brokerPods: [brokerId],
      brokerListen: '127.0.0.1:0',
      brokerPodsOverNetwork: [brokerId],
      workloadAttestorsUnixDiscoverWorkloadPath: 'true',
      workloadAttestorsK8sKubeletReadOnlyPort: String(kubelet.port),
      ...more,
    },
  });
  await pair.admin.createEntry('/broker', {
    selectors: [{ type: 'unix', value: `path:${realpathSync(process.execPath)}` }],
  });
  const svid = await svidOf(pair, brokerId);
  const broker = connectBroker(t, { path }, pair.agent.id, svid, pair);
  const port = Number(/127\.0\.0\.1:(\d+)/.exec(pair.lines.find((line) => line.includes('brokers are served'))!)![1]);
  return {
    pair,
    kubelet,
    broker,
    remote: connectBroker(t, { host: '127.0.0.1', port }, pair.agent.id, svid, pair),
    entry: (path: string, ...selectors: string[]) =>
      pair.admin.createEntry(`/${path}`, { selectors: selectors.map((value) => ({ type: 'k8s', value })) }),
    /** A call's failure, with time for the agent to ask its server. */
    refused: (work: Promise<unknown>, status: number, reason: string | undefined, text: RegExp) =>
      assert.rejects(pair.pass(work, 100), (fault: Fault) => {
        assert.match(fault.message, text);
        assert.deepEqual([fault.status, fault.info?.reason], [status, reason]);
        return true;
      }),
  };
}
const ids = ({ svids }: any): string[] => svids.map(({ spiffe_id }: any) => spiffe_id.slice(21)).sort();

test('BR-4 BR-7 BR-8 BR-9 a pod by key, by UID, or by both is the same pod, over the socket and over the network', async (t) => {
  const { broker, remote, entry, kubelet } = await rig(t);
  kubelet.pods = [{ ...web, uid: otherUid, namespace: 'other' }, web];
  await entry('web', 'ns:shop', 'sa:seller', 'pod-label:app:web');
  await entry('other', 'ns:other');
  // A reference is to the pod: what only one of its containers has is nobody's.
  await entry('container', 'ns:shop', 'container-name:web');
  for (const by of [{ key }, { uid }, { key, uid }, { key, uid: uid.toUpperCase() }]) {
    for (const one of [broker, remote]) {
      assert.deepEqual(ids(await one.fetch(podReference(by))), ['web']);
      for (const method of streams) assert.ok((await one.open(method, podReference(by)).next()).value);
    }
    const { value } = await broker.open('SubscribeToX509SVID', podReference(by)).next();
    assert.deepEqual(ids(value), ['web']);
  }
  assert.deepEqual(ids(await broker.fetch(podReference({ key: { ...key, namespace: 'other' } }))), ['other']);
});

test('BR-9 BR-16 BR-18 a pod that is not there, or has another UID, is not found, with its reason', async (t) => {
  const { broker, refused, entry } = await rig(t);
  await entry('web', 'ns:shop');
  for (const by of [{ key: { ...key, name: 'web-1' } }, { uid: otherUid }, { key, uid: otherUid }]) {
    const text = /is not found: this node has no such pod/;
    await refused(broker.fetch(podReference(by)), Status.NOT_FOUND, 'WORKLOAD_NOT_FOUND', text);
    for (const method of streams)
      await refused(broker.open(method, podReference(by)).next(), Status.NOT_FOUND, 'WORKLOAD_NOT_FOUND', text);
  }
  await assert.rejects(broker.fetch(podReference({ key, uid: otherUid })), (fault: Fault) => {
    assert.deepEqual(fault.info?.metadata, { ...key, uid: otherUid });
    return true;
  });
});

test('BR-17 BR-13 a pod that no entry describes is not entitled; one whose labels change gets and loses by them', async (t) => {
  const { pair, broker, refused, entry, kubelet } = await rig(t);
  const denied = [Status.PERMISSION_DENIED, 'WORKLOAD_NOT_ENTITLED', /no identity issued/] as const;
  await refused(broker.fetch(podReference({ key })), ...denied);
  await entry('web', 'pod-label:app:web');
  await entry('canary', 'pod-label:canary:yes');
  const stream = broker.open('SubscribeToX509SVID', podReference({ key }));
  assert.deepEqual(ids((await stream.next()).value), ['web']);
  kubelet.pods = [{ ...web, labels: { app: 'web', canary: 'yes' } }];
  assert.deepEqual(ids((await pair.pass(stream.next(), 1_000)).value), ['canary', 'web']);
  kubelet.pods = [{ ...web, labels: {} }];
  await assert.rejects(pair.pass(stream.next(), 1_000), (fault: Fault) => {
    return fault.status === Status.PERMISSION_DENIED && fault.info?.reason === 'WORKLOAD_NOT_ENTITLED';
  });
});

test('BR-19 when the pod goes, or another takes its name, its streams end within seconds, and no others', async (t) => {
  const { pair, broker, entry, kubelet } = await rig(t);
  const db: FakePod = { ...web, name: 'db-0', uid: 'c1b2c3d4-e5f6-7890-abcd-ef1234567890', labels: { app: 'db' } };
  kubelet.pods = [web, db];
  await entry('web', 'pod-label:app:web');
  await entry('db', 'pod-label:app:db');
  const other = broker.open('SubscribeToX509SVID', podReference({ uid: db.uid }));
  await other.next();
  for (const after of [[db], [{ ...web, uid: otherUid }, db]]) {
    kubelet.pods = [web, db];
    await pair.clock.advance(1_000);
    const open = streams.map((method) => broker.open(method, podReference({ key })));
    for (const stream of open) await stream.next();
    kubelet.pods = after;
    const before = pair.clock.now();
    const ended = open.map((stream) =>
      assert.rejects(stream.next(), (fault: Fault) => {
        assert.match(fault.message, /pod shop\/web-0 is not found: it is no longer on this node/);
        return fault.status === Status.NOT_FOUND && fault.info?.reason === 'WORKLOAD_NOT_FOUND';
      }),
    );
    await pair.pass(Promise.all(ended), 1_000);
    assert.ok(pair.clock.now() - before <= 10_000, `${pair.clock.now() - before} ms`);
  }
  await entry('db2', 'pod-label:app:db');
  let found = (await other.next()).value;
  while (ids(found).length < 2) found = (await other.next()).value;
  assert.deepEqual(ids(found), ['db', 'db2']);
});

test('while kubelet is away, what was found counts for a minute, is logged once, and no process notices', async (t) => {
  const { pair, broker, entry, kubelet } = await rig(t);
  await entry('web', 'ns:shop');
  const stream = broker.open('SubscribeToX509Bundles', podReference({ key }));
  await stream.next();
  kubelet.mood = 'failing';
  const before = pair.clock.now();
  await assert.rejects(pair.pass(stream.next(), 1_000), (fault: Fault) => {
    assert.match(fault.message, /kubelet has not said for 60000 ms/);
    return fault.status === Status.UNAVAILABLE && fault.info === undefined;
  });
  const passed = pair.clock.now() - before;
  assert.ok(passed >= 60_000 && passed <= 75_000, `${passed} ms`);
  assert.equal(pair.lines.filter((line) => line.includes('pods not listed')).length, 1);
  await assert.rejects(broker.fetch(podReference({ key })), (fault: Fault) => /answers 500/.test(fault.message));
  const { svids } = await pair.workload.unary(
    'SpiffeWorkloadAPI',
    'FetchJWTSVID',
    { audience: ['db'] },
    { metadata: { 'workload.spiffe.io': 'true' } },
  );
  assert.equal(svids.length, 1);
  kubelet.mood = 'well';
  assert.deepEqual(ids(await broker.fetch(podReference({ key }))), ['web']);
});

test('three hundred pods followed on one connection are one list each five seconds, and none once nobody follows', async (t) => {
  const { pair, broker, entry, kubelet } = await rig(t);
  kubelet.pods = Array.from({ length: 300 }, (_, n) => ({
    ...web,
    name: `web-${n}`,
    uid: `a1b2c3d4-e5f6-7890-abcd-${String(n).padStart(12, '0')}`,
  }));
  await entry('web', 'ns:shop');
  const open = kubelet.pods.map((pod) => broker.open('SubscribeToX509Bundles', podReference({ uid: pod.uid })));
  await Promise.all(open.map((stream) => stream.next()));
  kubelet.asked = 0;
  for (let second = 0; second < 20; second++) {
    await pair.clock.advance(1_000);
    await pair.workload.unary('grpc.health.v1.Health', 'Check', {});
  }
  assert.ok(kubelet.asked >= 2 && kubelet.asked <= 4, `${kubelet.asked}`);
  await Promise.all(open.map((stream) => stream.return?.()));
  await pair.workload.unary('grpc.health.v1.Health', 'Check', {});
  await pair.clock.advance(10_000);
  kubelet.asked = 0;
  await pair.clock.advance(60_000);
  assert.equal(kubelet.asked, 0);
});

test('BR-11 namespaces may be few, and a broker without the right to pods has none', async (t) => {
  const { broker, refused, entry, kubelet } = await rig(t, { brokerPodNamespaces: ['shop'] });
  kubelet.pods = [web, { ...web, namespace: 'kube-system', uid: otherUid }];
  await entry('web', 'ns:shop');
  await entry('system', 'ns:kube-system');
  assert.deepEqual(ids(await broker.fetch(podReference({ key }))), ['web']);
  for (const by of [{ key: { ...key, namespace: 'kube-system' } }, { uid: otherUid }]) {
    const text = /pods of namespace "kube-system" may not be referred to/;
    await refused(broker.fetch(podReference(by)), Status.PERMISSION_DENIED, undefined, text);
  }
});
