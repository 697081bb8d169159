/** What a whole agent makes of callers and services that misbehave: refused or bounded, logged once, unnoticed by others. */
import assert from 'node:assert/strict';
import { realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Fault, Status } from '../../src/errors.ts';
import { type Channel, connectUnix } from '../../src/rpc/connect.ts';
import { fakeKubelet } from '../agent/support/fake-kubelet.ts';
import { service as broker, header as brokerHeader, connectBroker, podReference, svidOf } from '../support/broker.ts';
import { until } from '../support/clock.ts';
import { header, type Pair, startPair } from '../support/pair.ts';

const api = 'SpiffeWorkloadAPI';
const sds = 'envoy.service.secret.v3.SecretDiscoveryService';

/** A caller that another one must not disturb: its call is answered, its stream stands. */
async function neighbour(t: TestContext, pair: Pair) {
  const channel = connectUnix(pair.agent.socket);
  t.after(() => channel.close());
  const stream = channel.stream(api, 'FetchX509SVID', {}, { metadata: header });
  await stream.next();
  let more = 0;
  return async (): Promise<void> => {
    const { svids } = await channel.unary(api, 'FetchJWTSVID', { audience: ['db'] }, { metadata: header });
    assert.ok(svids.length > 0);
    await pair.admin.createEntry(`/more-${++more}`);
    assert.ok((await stream.next()).value.svids.length > 1);
  };
}

async function rig(t: TestContext) {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const undisturbed = await neighbour(t, pair);
  const channel = connectUnix(pair.agent.socket);
  t.after(() => channel.close());
  return { pair, channel, undisturbed };
}

const refusals = (pair: Pair, text: RegExp): readonly string[] =>
  pair.lines.filter((line) => /call refused|call failed/.test(line) && text.test(line));
const many = async (count: number, call: () => Promise<unknown>, status: number): Promise<void> => {
  for (let made = 0; made < count; made++)
    await assert.rejects(call(), (fault: Fault) => {
      assert.equal(fault.status, status, fault.message);
      return true;
    });
};

test('WE-6 a hundred calls without the security header, or with a wrong one, are refused and one line in the log', async (t) => {
  const { pair, channel, undisturbed } = await rig(t);
  for (const metadata of [{}, { 'workload.spiffe.io': 'yes' }] as Record<string, string>[]) {
    const call = () => channel.unary(api, 'FetchJWTSVID', { audience: ['db'] }, { metadata });
    await many(50, call, Status.INVALID_ARGUMENT);
  }
  assert.equal(refusals(pair, /security header missing/).length, 1);
  await undisturbed();
});

const large = Array.from({ length: 5_000 }, (_, at) => `${at}`.padEnd(1_000, 'x'));
const tooLarge: readonly [string, (channel: Channel) => Promise<unknown>][] = [
  ['a discovery request', (channel) => channel.unary(sds, 'FetchSecrets', { resource_names: large })],
  ['a list of audiences', (channel) => channel.unary(api, 'FetchJWTSVID', { audience: large }, { metadata: header })],
  [
    'a token',
    (channel) => channel.unary(api, 'ValidateJWTSVID', { audience: 'db', svid: 'x'.repeat(5e6) }, { metadata: header }),
  ],
];
for (const [what, call] of tooLarge) {
  test(`${what} of 5 MB, time and again, is refused before it is read, and one line in the log`, async (t) => {
    const { pair, channel, undisturbed } = await rig(t);
    await many(5, () => call(channel), Status.RESOURCE_EXHAUSTED);
    assert.equal(refusals(pair, /larger than max/).length, 1);
    await undisturbed();
  });
}

test('a kubelet with a bad certificate, and a request of 5 MB, are refused to a broker and one line each; nobody else notices', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'mu-bad-'));
  t.after(() => rm(directory, { recursive: true }));
  // It speaks no TLS at all, and is no more believed than one with a wrong certificate.
  const kubelet = await fakeKubelet();
  t.after(() => kubelet.close());
  const path = join(directory, 'broker.sock');
  const brokerId = 'spiffe://example.org/broker';
  const pair = await startPair(t, {
    agent: {
      brokerSocket: path,
      brokerPods: [brokerId],
      workloadAttestorsUnixDiscoverWorkloadPath: 'true',
      workloadAttestorsK8sNodeName: 'localhost',
      workloadAttestorsK8sKubeletSecurePort: String(kubelet.port),
      workloadAttestorsK8sKubeletCaPath: realpathSync('/dev/null'),
      workloadAttestorsK8sUseAnonymousAuthentication: 'true',
    },
  });
  await pair.admin.createEntry('/broker', {
    selectors: [{ type: 'unix', value: `path:${realpathSync(process.execPath)}` }],
  });
  await pair.admin.createEntry('/web');
  const undisturbed = await neighbour(t, pair);
  const { channel, fetch } = connectBroker(t, { path }, pair.agent.id, await svidOf(pair, brokerId), pair);
  const reference = podReference({ key: { namespace: 'shop', name: 'web-0' } });
  await many(20, () => fetch(reference), Status.UNAVAILABLE);
  assert.equal(kubelet.asked, 0);
  assert.equal(refusals(pair, /kubelet at .* did not prove itself/).length, 1);
  const call = () => channel.unary(broker, 'FetchJWTSVID', { audience: large }, { metadata: brokerHeader });
  await many(5, call, Status.RESOURCE_EXHAUSTED);
  assert.equal(refusals(pair, /larger than max/).length, 1);
  await undisturbed();
});

test('a storm of rejections by an Envoy is read slowly, two lines in the log, and other callers do not notice', async (t) => {
  const { pair, channel, undisturbed } = await rig(t);
  const stream = channel.bidi(sds, 'StreamSecrets');
  t.after(() => stream.responses.return?.());
  const answers = stream.responses[Symbol.asyncIterator]();
  await stream.send({ resource_names: ['default'] });
  const { version_info, nonce } = (await answers.next()).value;
  const rejection = (text: string) => ({
    version_info,
    response_nonce: nonce,
    resource_names: ['default'],
    error_detail: { code: 3, message: text },
  });
  // Its transport holds it back: what it sends is no longer taken, long before this is over.
  for (let sent = 0; sent < 2_000; sent++) void stream.send(rejection(`${sent}`)).catch(() => {});
  await undisturbed();
  const told = (): string[] => pair.lines.filter((line) => line.includes('SDS client'));
  await until(() => told().length >= 2);
  await undisturbed();
  const lines = told();
  assert.equal(lines.length, 2, lines.join(''));
  assert.match(lines[0]!, /SDS client rejected its secrets/);
  assert.match(lines[1]!, /SDS client held back/);
});
