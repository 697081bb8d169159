/** The SPIFFE Broker API of a real agent, over real mutual TLS: who is a broker, for which processes, and until when. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, realpathSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type SecureVersion, connect as tlsConnect } from 'node:tls';
import { parseCertificate, splitCertificates } from '../../src/crypto/certificate.ts';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { type Fault, Status } from '../../src/errors.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { secureContextOptions } from '../../src/tls/credentials.ts';
import { type BrokerSvid, connectBroker, processReference, service, svidOf } from '../support/broker.ts';
import { testAuthority } from '../support/ca.ts';
import { type Pair, startPair } from '../support/pair.ts';

const brokerId = 'spiffe://example.org/broker';
const entryApi = 'spire.api.server.entry.v1.Entry';

/** Entries of this process itself: it is the broker. */
const self = { selectors: [{ type: 'unix', value: `path:${realpathSync(process.execPath)}` }] };

interface Workload extends ChildProcess {
  readonly pid: number;
}

/** An agent with brokers over a Unix socket, and workloads that are told apart by their programs. */
async function rig(t: TestContext, more: Readonly<Record<string, unknown>> = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'mu-br-'));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, 'broker.sock');
  const pair = await startPair(t, {
    agent: {
      brokerSocket: path,
      brokerProcesses: [brokerId],
      workloadAttestorsUnixDiscoverWorkloadPath: 'true',
      ...more,
    },
  });
  await pair.admin.createEntry('/broker', self);
  const svid = await svidOf(pair, brokerId);
  return {
    pair,
    path,
    svid,
    broker: connectBroker(t, { path }, pair.agent.id, svid, pair),
    connect: (shown: BrokerSvid | undefined) =>
      connectBroker(t, { path }, pair.agent.id, shown, { bundle: svid.bundle, clock: pair.clock }),
    /** A process with a program of its own, by which entries know it. */
    async workload(name: string): Promise<Workload> {
      const program = join(directory, name);
      copyFileSync('/bin/sleep', program);
      const child = spawn(program, ['600'], { stdio: 'ignore' });
      t.after(() => child.kill('SIGKILL'));
      await once(child, 'spawn');
      return child as Workload;
    },
    selectors: (name: string) => [{ type: 'unix', value: `path:${join(directory, name)}` }],
    entry: (name: string, entry: object = {}) =>
      pair.admin.createEntry(`/${name}`, {
        selectors: [{ type: 'unix', value: `path:${join(directory, name)}` }],
        ...entry,
      }),
    remove: (id: string) => pair.admin.call(entryApi, 'BatchDeleteEntry', { ids: [id] }),
  };
}

const ids = ({ svids }: any): string[] => svids.map(({ spiffe_id }: any) => spiffe_id);
const leafOf = (message: any) => parseCertificate(splitCertificates(message.svids[0].x509_svid)[0]!);

/** A refusal by its status, its reason (none: undefined) and its words. */
const refused = (status: number, reason: string | undefined, text: RegExp) => (fault: Fault) => {
  assert.match(fault.message, text);
  assert.deepEqual([fault.status, fault.info?.reason], [status, reason]);
  if (reason !== undefined) assert.equal(fault.info?.domain, 'spiffe.io');
  return true;
};
const gone = async (child: Workload): Promise<void> => {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
};
/** Until the agent has heard of entries that the server has. */
async function known(pair: Pair, count: number): Promise<void> {
  while (pair.agent.status().entries < count) await new Promise((resolve) => setImmediate(resolve));
}

test('BE-1 BE-2 ST-1 the endpoint is there only when it is configured, and its socket is for its owner', async (t) => {
  const { path } = await rig(t);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const plain = await startPair(t);
  assert.ok(!plain.lines.some((line) => line.includes('brokers are served')));
});

test('BE-3 every call carries the header, with exactly that value', async (t) => {
  const { broker, workload, entry } = await rig(t);
  await entry('web');
  const { pid } = await workload('web');
  const text = /^security header missing from request/;
  for (const metadata of [
    {},
    { 'broker.spiffe.io': 'TRUE' },
    { 'broker.spiffe.io': '1' },
    { 'workload.spiffe.io': 'true' },
  ]) {
    const request = { ...processReference(pid), audience: ['db'] };
    await assert.rejects(
      broker.channel.unary(service, 'FetchJWTSVID', request, { metadata }),
      refused(Status.INVALID_ARGUMENT, undefined, text),
    );
    for (const method of ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'])
      await assert.rejects(
        broker.channel.stream(service, method, request, { metadata }).next(),
        refused(Status.INVALID_ARGUMENT, undefined, text),
      );
  }
  assert.equal((await broker.fetch(processReference(pid))).svids.length, 1);
});

test('BE-4 BE-7 BE-8 BR-11 who shows no SVID is unauthenticated, who is no broker is denied, whom nobody vouches for does not get in', async (t) => {
  const { pair, svid, connect, workload, entry } = await rig(t);
  await entry('web');
  const { pid } = await workload('web');
  await assert.rejects(
    connect(undefined).fetch(processReference(pid)),
    refused(Status.UNAUTHENTICATED, undefined, /shown no SVID/),
  );
  await pair.admin.createEntry('/somebody', self);
  const somebody = connect(await svidOf(pair, 'spiffe://example.org/somebody'));
  const denied = refused(Status.PERMISSION_DENIED, undefined, /"spiffe:\/\/example.org\/somebody" is not a broker/);
  await assert.rejects(somebody.fetch(processReference(pid)), denied);
  // Nor does it learn whether a process exists.
  await assert.rejects(somebody.fetch(processReference(2 ** 22 + 1)), denied);
  for (const method of ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'])
    await assert.rejects(somebody.open(method, processReference(pid)).next(), denied);

  const stranger = testAuthority({ now: pair.clock.now() }).issue({ id: brokerId });
  const key = createPrivateKey({ key: stranger.key!.exportPkcs8!(), format: 'der', type: 'pkcs8' });
  const forged = { chain: stranger.chain, key, bundle: svid.bundle };
  const fault = await connect(forged)
    .fetch(processReference(pid))
    .catch((error: Fault) => error);
  assert.equal(fault.status, Status.UNAVAILABLE);
  assert.equal(pair.lines.filter((line) => line.includes('connection of a broker refused')).length, 1);
});

test('BE-4 TLS 1.2 and 1.3, and nothing older', async (t) => {
  const { path, svid } = await rig(t);
  const shake = (version: SecureVersion) =>
    new Promise<string>((resolve) => {
      const socket = tlsConnect({
        path,
        minVersion: version,
        maxVersion: version,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
        ...(version === 'TLSv1.1' ? { ciphers: 'DEFAULT@SECLEVEL=0' } : {}),
        ...secureContextOptions(svid),
      });
      socket.once('secureConnect', () => {
        resolve(String(socket.getProtocol()));
        socket.destroy();
      });
      socket.once('error', () => resolve('refused'));
    });
  assert.deepEqual(await Promise.all((['TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const).map(shake)), [
    'refused',
    'TLSv1.2',
    'TLSv1.3',
  ]);
});

test('BE-6 the agent shows its own SVID, also after its renewal; a broker that expects another ID does not go on', async (t) => {
  const { pair, path, svid, workload, entry } = await rig(t);
  await entry('web');
  const { pid } = await workload('web');
  const other = connectBroker(t, { path }, parseId('spiffe://example.org/spire/agent/other'), svid, pair);
  await assert.rejects(other.fetch(processReference(pid)), (fault: Fault) => fault.code === 'peer/untrusted');

  const shown = () =>
    new Promise<string>((resolve, reject) => {
      const socket = tlsConnect({ path, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
      socket.once('error', reject);
      socket.once('secureConnect', () => {
        resolve(socket.getPeerX509Certificate()!.serialNumber);
        socket.destroy();
      });
    });
  const before = await shown();
  const renewed = (async () => {
    while ((await shown()) === before) await new Promise((resolve) => setImmediate(resolve));
  })();
  await pair.pass(renewed, 60_000);
});

test('BR-1 BR-4 BR-13 BR-21 a process is found by its pid: all its SVIDs at once and whole, renewed, and without what was taken away', async (t) => {
  const { pair, broker, workload, entry, remove } = await rig(t);
  await entry('web', { hint: 'inner' });
  const second = await entry('web', { spiffe_id: { trust_domain: 'example.org', path: '/web2' }, hint: 'inner' });
  const { pid } = await workload('web');
  const stream = broker.open('SubscribeToX509SVID', processReference(pid));
  const first = (await stream.next()).value;
  assert.deepEqual(ids(first).sort(), ['spiffe://example.org/web', 'spiffe://example.org/web2']);
  assert.deepEqual(
    first.svids.map(({ hint }: any) => hint),
    ['inner', ''],
  );
  const leaf = leafOf(first);
  assert.deepEqual(leaf.uris, ids(first).slice(0, 1));
  for (const svid of first.svids) {
    assert.equal(splitCertificates(svid.bundle).length, 1);
    assert.ok(svid.x509_svid_key.length > 0);
  }
  let after = first;
  const renewed = (async () => {
    while (leafOf(after).serial === leaf.serial) after = (await stream.next()).value;
  })();
  await pair.pass(renewed, 60_000);
  assert.equal(ids(after).length, 2);
  await remove(second);
  while (ids(after).length > 1) after = (await stream.next()).value;
  assert.deepEqual(ids(after), ['spiffe://example.org/web']);
});

test('BR-6 BR-16 a pid that nobody has is not found, with its reason; a pid that is none is not valid', async (t) => {
  const { pair, broker, workload, entry } = await rig(t);
  await entry('web');
  const child = await workload('web');
  await gone(child);
  const missing = refused(Status.NOT_FOUND, 'WORKLOAD_NOT_FOUND', /there is no process \d+/);
  const invalid = refused(Status.INVALID_ARGUMENT, 'WORKLOAD_REFERENCE_INVALID', /process id/);
  const empty = refused(Status.INVALID_ARGUMENT, 'WORKLOAD_REFERENCE_INVALID', /names no workload/);
  const cases: [object, (fault: Fault) => boolean][] = [
    [processReference(child.pid), missing],
    [processReference(0), invalid],
    [processReference(-1), invalid],
    [{}, empty],
  ];
  for (const [request, check] of cases) {
    await assert.rejects(broker.fetch(request), check);
    for (const method of ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'])
      await assert.rejects(broker.open(method, request).next(), check);
  }
  await assert.rejects(broker.fetch(processReference(child.pid)), (fault: Fault) => {
    assert.deepEqual(fault.info?.metadata, { pid: String(child.pid) });
    return true;
  });

  // And whoever looks after the node sees what the broker was told.
  const admin = connectUnix(pair.agent.adminSocket);
  const { refusals } = await admin.unary('mutual.agent.v1.Status', 'GetStatus', {});
  admin.close();
  const [last] = refusals;
  assert.deepEqual([last.broker, last.pid, last.code], [brokerId, 0, 'thing/missing']);
  assert.match(last.message, new RegExp(`there is no process ${child.pid}`));
});

test('BR-17 BR-20 a workload that no entry describes is not entitled, and whoever loses the last one loses its streams, alone', async (t) => {
  const { pair, broker, workload, entry, remove } = await rig(t);
  const right = await entry('web');
  await entry('db');
  const web = await workload('web');
  const db = await workload('db');
  const nobody = await workload('nobody');
  const denied = refused(Status.PERMISSION_DENIED, 'WORKLOAD_NOT_ENTITLED', /no identity issued/);
  await assert.rejects(pair.pass(broker.fetch(processReference(nobody.pid)), 200), denied);
  for (const method of ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'])
    await assert.rejects(pair.pass(broker.open(method, processReference(nobody.pid)).next(), 200), denied);

  const methods = ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'];
  const open = async (pid: number) => {
    const streams = methods.map((method) => broker.open(method, processReference(pid)));
    for (const stream of streams) await stream.next();
    return streams;
  };
  const ofWeb = await open(web.pid);
  const [ofDb] = await open(db.pid);
  await remove(right);
  for (const stream of ofWeb) await assert.rejects(stream.next(), denied);
  await assert.rejects(pair.pass(broker.fetch(processReference(web.pid)), 200), denied);
  // The connection and what else is on it go on.
  await entry('db', { spiffe_id: { trust_domain: 'example.org', path: '/db2' } });
  assert.deepEqual(ids((await ofDb!.next()).value).sort(), ['spiffe://example.org/db', 'spiffe://example.org/db2']);
  await entry('web');
  assert.deepEqual(ids(await broker.fetch(processReference(web.pid))), ['spiffe://example.org/web']);
});

test('BR-19 when the process ends, so do its streams within a second, and no others', async (t) => {
  const { pair, broker, workload, entry } = await rig(t);
  await entry('web');
  await entry('db');
  const web = await workload('web');
  const db = await workload('db');
  const streams = ['SubscribeToX509SVID', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'].map((method) =>
    broker.open(method, processReference(web.pid)),
  );
  const other = broker.open('SubscribeToX509SVID', processReference(db.pid));
  for (const stream of [...streams, other]) await stream.next();
  await gone(web);
  const ended = Promise.all(
    streams.map((stream) => assert.rejects(stream.next(), refused(Status.NOT_FOUND, 'WORKLOAD_NOT_FOUND', /is gone/))),
  );
  const before = pair.clock.now();
  await pair.pass(ended, 500);
  assert.ok(pair.clock.now() - before <= 1_500, `${pair.clock.now() - before} ms`);
  await entry('db', { spiffe_id: { trust_domain: 'example.org', path: '/db2' } });
  assert.equal(ids((await other.next()).value).length, 2);
});

test('what a process is, is looked at again while it is followed', async (t) => {
  const { pair, broker, workload, entry, selectors } = await rig(t);
  await entry('web');
  await entry('both', { selectors: [...selectors('web'), { type: 'unix', value: 'supplementary_gid:4242' }] });
  const { pid } = await workload('web');
  const stream = broker.open('SubscribeToX509SVID', processReference(pid));
  assert.deepEqual(ids((await stream.next()).value), ['spiffe://example.org/web']);
  // A program that becomes another one is another workload: the attestor says so, the stream does too.
  await entry('db');
  const child = spawn('sh', ['-c', `read line; exec "$0" 600`, selectors('db')[0]!.value.slice('path:'.length)], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  await pair.admin.createEntry('/shell', { selectors: [{ type: 'unix', value: `path:${realpathSync('/bin/sh')}` }] });
  await workload('db');
  const shifting = broker.open('SubscribeToX509SVID', processReference(child.pid!));
  assert.deepEqual(ids((await shifting.next()).value), ['spiffe://example.org/shell']);
  child.stdin!.end('go\n');
  const next = await pair.pass(shifting.next(), 1_000);
  assert.deepEqual(ids(next.value), ['spiffe://example.org/db']);
});

test('identities of admin and downstream entries are never handed out, nor do their federated bundles show', async (t) => {
  const { pair, broker, workload, entry } = await rig(t);
  const { x509_authorities } = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  const bundle = { trust_domain: 'other.org', x509_authorities };
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchSetFederatedBundle', { bundle: [bundle] });
  await entry('web', { admin: true, federates_with: ['other.org'] });
  await entry('web', { spiffe_id: { trust_domain: 'example.org', path: '/down' }, downstream: true });
  await known(pair, 3);
  const { pid } = await workload('web');
  const denied = refused(Status.PERMISSION_DENIED, 'WORKLOAD_NOT_ENTITLED', /no identity issued/);
  await assert.rejects(pair.pass(broker.fetch(processReference(pid)), 200), denied);
  await assert.rejects(pair.pass(broker.open('SubscribeToX509SVID', processReference(pid)).next(), 200), denied);
  await assert.rejects(pair.pass(broker.open('SubscribeToX509Bundles', processReference(pid)).next(), 200), denied);
  await entry('web', { spiffe_id: { trust_domain: 'example.org', path: '/plain' } });
  assert.deepEqual(ids(await broker.fetch(processReference(pid))), ['spiffe://example.org/plain']);
  const { value } = await broker.open('SubscribeToX509SVID', processReference(pid)).next();
  assert.deepEqual(ids(value), ['spiffe://example.org/plain']);
  assert.deepEqual(value.federated_bundles, {});
  const bundles = await broker.open('SubscribeToX509Bundles', processReference(pid)).next();
  assert.deepEqual(Object.keys(bundles.value.bundles), ['spiffe://example.org']);
});

test('BR-12 BR-13 BR-21 bundles are those of the workload that is meant: its own trust domain and what its entries federate with', async (t) => {
  const { pair, broker, workload, entry } = await rig(t);
  const { x509_authorities } = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  const bundle = { trust_domain: 'other.org', x509_authorities };
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchSetFederatedBundle', { bundle: [bundle] });
  await entry('web', { federates_with: ['other.org'] });
  await entry('db');
  const web = await workload('web');
  const db = await workload('db');
  const own = ['spiffe://example.org'];
  const both = [...own, 'spiffe://other.org'];
  const first = async (method: string, pid: number) => {
    const stream = broker.open(method, processReference(pid));
    return { stream, message: (await stream.next()).value };
  };
  for (const [pid, expected] of [
    [web.pid, both],
    [db.pid, own],
  ] as const) {
    const svids = await first('SubscribeToX509SVID', pid);
    assert.deepEqual(Object.keys(svids.message.federated_bundles), expected.slice(1));
    const x509 = await first('SubscribeToX509Bundles', pid);
    assert.deepEqual(Object.keys(x509.message.bundles).sort(), expected);
    assert.equal(splitCertificates(x509.message.bundles[own[0]!]).length, 1);
    const jwt = await first('SubscribeToJWTBundles', pid);
    assert.deepEqual(Object.keys(jwt.message.bundles).sort(), expected);
    const { keys } = JSON.parse(jwt.message.bundles[own[0]!].toString());
    assert.equal(keys.length, 1);
    assert.ok(keys[0].kid && keys[0].use !== 'x509-svid');
  }
  // One that is taken away is gone from the next message.
  const { stream } = await first('SubscribeToX509Bundles', web.pid);
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchDeleteFederatedBundle', {
    trust_domains: ['other.org'],
    mode: 'DISSOCIATE',
  });
  assert.deepEqual(Object.keys((await stream.next()).value.bundles), own);
});

test('BR-21 BR-23 JWT-SVIDs are for the audiences named, of all identities or of the one asked for', async (t) => {
  const { broker, workload, entry } = await rig(t);
  await entry('web', { hint: 'inner' });
  await entry('web', { spiffe_id: { trust_domain: 'example.org', path: '/web2' } });
  const { pid } = await workload('web');
  const reference = processReference(pid);
  const both = await broker.fetch({ ...reference, audience: ['db', 'cache'] });
  assert.deepEqual(ids(both).sort(), ['spiffe://example.org/web', 'spiffe://example.org/web2']);
  const hints = both.svids.map(({ spiffe_id, hint }: any) => [spiffe_id.slice(-4), hint]);
  assert.deepEqual(hints.sort(), [
    ['/web', 'inner'],
    ['web2', ''],
  ]);
  const web2 = both.svids.find(({ spiffe_id }: any) => spiffe_id.endsWith('web2'));
  const { claims } = decodeJwt(web2.svid);
  assert.deepEqual([claims.sub, claims.aud], ['spiffe://example.org/web2', ['cache', 'db']]);
  const one = await broker.fetch({ ...reference, spiffe_id: 'spiffe://example.org/web2' });
  assert.deepEqual(ids(one), ['spiffe://example.org/web2']);
  const plain = (text: RegExp) => refused(Status.INVALID_ARGUMENT, undefined, text);
  await assert.rejects(broker.fetch({ ...reference, audience: [] }), plain(/audience is empty/));
  await assert.rejects(broker.fetch({ ...reference, audience: [''] }), plain(/audience holds an empty/));
  await assert.rejects(broker.fetch({ ...reference, spiffe_id: 'web' }), plain(/SPIFFE ID/i));
  await assert.rejects(
    broker.fetch({ ...reference, spiffe_id: 'spiffe://example.org/broker' }),
    refused(Status.PERMISSION_DENIED, 'WORKLOAD_NOT_ENTITLED', /not entitled to "spiffe:\/\/example.org\/broker"/),
  );
});

test('BE-8 one broker that asks for too much is told when to come again, and no other broker notices', async (t) => {
  const other = 'spiffe://example.org/other-broker';
  const { pair, broker, connect, workload, entry } = await rig(t, {
    brokerProcesses: [brokerId, other],
    brokerCallsPerBroker: '3',
    brokerCallsPerSecond: '10',
  });
  await pair.admin.createEntry('/other-broker', self);
  await entry('web');
  const { pid } = await workload('web');
  const second = connect(await svidOf(pair, other));
  const reference = processReference(pid);
  const overload = (text: RegExp) => (fault: Fault) => {
    assert.match(fault.message, text);
    assert.equal(fault.status, Status.UNAVAILABLE);
    assert.ok(fault.retryAfterMs! > 0);
    return true;
  };
  const streams = [1, 2, 3].map(() => broker.open('SubscribeToX509SVID', reference));
  for (const stream of streams) await stream.next();
  await assert.rejects(broker.open('SubscribeToX509SVID', reference).next(), overload(/has 3 calls and streams open/));
  await second.fetch(reference);
  for (const stream of streams) await stream.return?.();
  // What a broker has closed is free again.
  const calls = Array.from({ length: 12 }, async () => broker.fetch(reference));
  const failures = (await Promise.allSettled(calls)).filter(({ status }) => status === 'rejected');
  assert.ok(failures.length >= 4);
  await pair.clock.advance(1_000);
  await broker.fetch(reference);
  for (let call = 0; call < 9; call++) await broker.fetch(reference).catch(() => {});
  await assert.rejects(broker.fetch(reference), overload(/more than 10 times a second/));
  await second.fetch(reference);
});

test('who is no broker has few connections, and a broker has its own: neither keeps a broker out', async (t) => {
  const { pair, broker, svid, connect, workload, entry } = await rig(t);
  await pair.admin.createEntry('/somebody', self);
  await entry('web');
  const { pid } = await workload('web');
  const somebody = await svidOf(pair, 'spiffe://example.org/somebody');
  const outcome = async (shown: BrokerSvid | undefined): Promise<number> => {
    const fault = await connect(shown)
      .fetch(processReference(pid))
      .then(
        () => undefined,
        (error: Fault) => error,
      );
    return fault?.status ?? 0;
  };
  const strangers = await Promise.all(Array.from({ length: 100 }, (_, at) => outcome(at % 2 ? undefined : somebody)));
  assert.equal(strangers.filter((status) => status === Status.UNAVAILABLE).length, 36);
  assert.equal(strangers.filter((status) => status !== Status.UNAVAILABLE).length, 64);
  assert.deepEqual(ids(await broker.fetch(processReference(pid))), ['spiffe://example.org/web']);
  const own = await Promise.all(Array.from({ length: 70 }, () => outcome(svid)));
  assert.equal(own.filter((status) => status === 0).length, 63);
  assert.equal(own.filter((status) => status === Status.UNAVAILABLE).length, 7);
  assert.equal(pair.lines.filter((line) => line.includes('have 64 connections already')).length, 2);
});

test('what was begun with an SVID ends with it: when it expires, or is revoked', async (t) => {
  const { pair, broker, svid, connect, workload, entry } = await rig(t);
  await entry('web');
  const { pid } = await workload('web');
  const stream = broker.open('SubscribeToX509Bundles', processReference(pid));
  await stream.next();
  const until = parseCertificate(svid.chain[0]!).notAfter;
  const ended = (async () => {
    for (;;) await stream.next();
  })();
  await assert.rejects(pair.pass(ended, 60_000), (fault: Fault) => fault.status === Status.UNAUTHENTICATED);
  assert.ok(pair.clock.now() >= until && pair.clock.now() < until + 180_000);

  const fresh = await svidOf(pair, brokerId);
  const again = connect(fresh);
  const next = again.open('SubscribeToX509SVID', processReference(pid));
  await next.next();
  await pair.admin.call('mutual.server.v1.Revocation', 'Revoke', {
    serial: String(parseCertificate(fresh.chain[0]!).serial),
  });
  const refusedNow = async (): Promise<void> => {
    for (;;) await next.next();
  };
  await assert.rejects(refusedNow(), (fault: Fault) => {
    assert.match(fault.message, /does not hold any more/);
    return fault.status === Status.UNAUTHENTICATED;
  });
  await assert.rejects(again.fetch(processReference(pid)), (fault: Fault) => fault.status === Status.UNAUTHENTICATED);
});

test('BR-1 a profile may be turned off: its methods are not offered, the others are', async (t) => {
  const { broker, workload, entry } = await rig(t, { brokerProfiles: ['jwt'] });
  await entry('web');
  const { pid } = await workload('web');
  for (const method of ['SubscribeToX509SVID', 'SubscribeToX509Bundles'])
    await assert.rejects(
      broker.open(method, processReference(pid)).next(),
      (fault: Fault) => fault.status === Status.UNIMPLEMENTED,
    );
  assert.equal((await broker.fetch(processReference(pid))).svids.length, 1);
});

test('BR-5 over the network no process may be referred to, whoever asks; over the socket each only what it was given', async (t) => {
  const podsOnly = 'spiffe://example.org/pods-only';
  const { pair, svid, connect, workload, entry } = await rig(t, {
    brokerPods: [podsOnly],
    brokerListen: '127.0.0.1:0',
    brokerPodsOverNetwork: [brokerId],
    workloadAttestorsK8sKubeletReadOnlyPort: '1',
  });
  await pair.admin.createEntry('/pods-only', self);
  await entry('web');
  const { pid } = await workload('web');
  const line = pair.lines.find((one) => one.includes('brokers are served'))!;
  const port = Number(/127\.0\.0\.1:(\d+)/.exec(line)![1]);
  const remote = connectBroker(t, { host: '127.0.0.1', port }, pair.agent.id, svid, pair);
  await assert.rejects(
    remote.fetch(processReference(pid)),
    refused(Status.PERMISSION_DENIED, undefined, /may not refer to process \d+ over the network/),
  );
  const local = connect(await svidOf(pair, podsOnly));
  await assert.rejects(
    local.fetch(processReference(pid)),
    refused(Status.PERMISSION_DENIED, undefined, /may not refer to process \d+ over the socket/),
  );
  const stranger = connectBroker(t, { host: '127.0.0.1', port }, pair.agent.id, await svidOf(pair, podsOnly), pair);
  await assert.rejects(
    stranger.fetch(processReference(pid)),
    refused(Status.PERMISSION_DENIED, undefined, /is not a broker of this agent over the network/),
  );
});
