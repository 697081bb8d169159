import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Agent, startAgent } from '../../agent/agent.ts';
import type { Fault } from '../../src/errors.ts';
import { createLog, silentLog } from '../../src/log.ts';
import { type Channel, connectUnix } from '../../src/rpc/connect.ts';
import { loadService } from '../../src/rpc/load.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { testAuthority } from '../support/ca.ts';
import { type DrivenClock, drivenClock } from '../support/clock.ts';
import { api, header, id } from './support/agent-rig.ts';
import { type FakeServer, fakeServer } from './support/fake-server.ts';
import { middling } from './support/random.ts';
import { type ServedFake, serveFake } from './support/serve-fake.ts';

const minute = 60_000;
const mine = [parseSelector(`unix:uid:${process.getuid?.()}`)];

interface Running {
  readonly clock: DrivenClock;
  readonly server: FakeServer;
  readonly served: ServedFake;
  start(flags?: Record<string, unknown>): Promise<Agent>;
  channel(path: string): Channel;
}

async function running(t: TestContext): Promise<Running> {
  const clock = drivenClock(Date.now());
  const server = fakeServer(clock);
  const served = await serveFake(t, server, clock);
  const agents: Agent[] = [];
  const channels: Channel[] = [];
  t.after(async () => {
    for (const channel of channels) channel.close();
    for (const agent of agents) await agent.close();
  });
  return {
    clock,
    server,
    served,
    async start(flags = {}) {
      const { options } = await served.options(flags);
      const agent = await startAgent(options, { clock, random: middling(), log: silentLog });
      agents.push(agent);
      return agent;
    },
    channel(path) {
      const channel = connectUnix(path);
      channels.push(channel);
      return channel;
    },
  };
}

async function fetchX509(channel: Channel): Promise<any> {
  const stream = channel.stream(api, 'FetchX509SVID', {}, { metadata: header });
  try {
    return (await stream.next()).value;
  } finally {
    await stream.return?.();
  }
}

test('WE-1 WE-2 WE-3 WE-12 a join token, then an SVID in the hands of this very process, over real sockets', async (t) => {
  const { server, start, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const agent = await start();
  assert.equal(agent.id, id('/spire/agent/join_token/the-token'));
  const { svids } = await fetchX509(channel(agent.socket));
  assert.deepEqual(
    svids.map((svid: any) => svid.spiffe_id),
    [id('/a')],
  );
  const jwt = await channel(agent.socket).unary(api, 'FetchJWTSVID', { audience: ['x'] }, { metadata: header });
  assert.equal(jwt.svids.length, 1);
  assert.ok(server.calls.includes('PostStatus'));
  const status = agent.status();
  assert.deepEqual(
    [status.node, status.sync, status.entries, status.x509Svids, status.jwtSvids],
    ['attested', 'push', 1, 1, 1],
  );
  assert.ok(status.servesUntil);
});

test('a server without push is attested to and polled, over real sockets', async (t) => {
  const { server, start, channel } = await running(t);
  server.push = false;
  for (const name of ['a', 'b', 'c', 'd', 'e']) server.put({ id: name, selectors: mine });
  const agent = await start();
  assert.equal((await fetchX509(channel(agent.socket))).svids.length, 5);
  assert.equal(agent.status().sync, 'poll');
});

test('a workload may look at the first message of a stream and leave, thousands of times on one connection', async (t) => {
  const { server, start, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const workload = channel((await start()).socket);
  for (let call = 0; call < 2_500; call++) await fetchX509(workload);
});

test('the socket is open to all in an open directory, the admin socket to its owner in a closed one', async (t) => {
  const before = process.umask(0o077);
  t.after(() => process.umask(before));
  const { start } = await running(t);
  const agent = await start();
  const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
  assert.deepEqual([mode(agent.socket), mode(dirname(agent.socket))], ['777', '755']);
  assert.deepEqual([mode(agent.adminSocket), mode(dirname(agent.adminSocket))], ['600', '700']);
});

test('WE-22 health and reflection answer without the header; WIT methods are unimplemented', async (t) => {
  const { server, start, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const workload = channel((await start()).socket);
  assert.deepEqual((await workload.unary('grpc.health.v1.Health', 'Check', {})).status, 'SERVING');
  await assert.rejects(
    workload.unary('grpc.health.v1.Health', 'Check', { service: 'other' }),
    (fault: Fault) => fault.status === 5,
  );
  const watch = workload.stream('grpc.health.v1.Health', 'Watch', {});
  assert.equal((await watch.next()).value.status, 'SERVING');
  await watch.return?.();
  await assert.rejects(
    workload.stream(api, 'FetchWITSVID', {}, { metadata: header }).next(),
    (fault: Fault) => fault.status === 12,
  );
  await assert.rejects(
    fetchX509({ ...workload, stream: (service, method, request) => workload.stream(service, method, request) }),
    (fault: Fault) => fault.status === 3,
  );
});

test('the admin socket tells what the agent holds and changes the level of its log; the public one does neither', async (t) => {
  const { clock, server, served, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const log = createLog({ level: 'info', format: 'json', clock, write: () => {} });
  const { options } = await served.options();
  const agent = await startAgent(options, { clock, random: middling(), log });
  t.after(() => agent.close());
  await fetchX509(channel(agent.socket));
  const admin = channel(agent.adminSocket);
  const info = await admin.unary('spire.agent.debug.v1.Debug', 'GetInfo', {});
  assert.deepEqual(info.svid_chain[0].id, { trust_domain: 'example.org', path: '/spire/agent/join_token/the-token' });
  assert.deepEqual([info.cached_x509_svids_count, info.cached_jwt_svids_count, info.uptime], [1, 0, 0]);
  assert.equal(Number(info.last_sync_success), Math.floor(clock.now() / 1000));
  const logger = 'spire.api.agent.logger.v1.Logger';
  assert.deepEqual(await admin.unary(logger, 'GetLogger', {}), { current_level: 'INFO', launch_level: 'INFO' });
  assert.deepEqual(await admin.unary(logger, 'SetLogLevel', { new_level: 'DEBUG' }), {
    current_level: 'DEBUG',
    launch_level: 'INFO',
  });
  assert.equal(log.level, 'debug');
  assert.deepEqual(await admin.unary(logger, 'ResetLogLevel', {}), { current_level: 'INFO', launch_level: 'INFO' });
  await assert.rejects(admin.unary(logger, 'SetLogLevel', {}), (fault: Fault) => fault.status === 3);
  await assert.rejects(admin.unary(logger, 'SetLogLevel', { new_level: 99 }), (fault: Fault) => fault.status === 3);
  assert.equal(statSync(agent.adminSocket).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(agent.adminSocket)).mode & 0o777, 0o700);
  // What is the operator's is not so much as there for a workload, header or not.
  for (const service of [
    'spire.agent.debug.v1.Debug',
    logger,
    'spire.api.agent.delegatedidentity.v1.DelegatedIdentity',
    'mutual.agent.v1.Status',
    'mutual.agent.v1.Explain',
  ]) {
    const refused = (fault: Fault): boolean => fault.status === 12;
    for (const [name, { responseStream }] of Object.entries(loadService(service))) {
      const workloads = channel(agent.socket);
      const call = responseStream
        ? workloads.stream(service, name, {}, { metadata: header }).next()
        : workloads.unary(service, name, {}, { metadata: header });
      await assert.rejects(call, refused, `${service}/${name}`);
    }
  }
});

test('restarted with the server down it serves what it had, X509-SVID, key and bundles, without a join token', async (t) => {
  const { server, served, start, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const first = await start();
  const before = await fetchX509(channel(first.socket));
  await first.close();
  await served.stop();
  const again = await start({ joinToken: undefined });
  const after = await fetchX509(channel(again.socket));
  assert.ok(after.svids[0].x509_svid.equals(before.svids[0].x509_svid));
  assert.ok(after.svids[0].x509_svid_key.equals(before.svids[0].x509_svid_key));
  assert.ok(after.svids[0].bundle.equals(before.svids[0].bundle));
  assert.equal(again.id, first.id);
  await assert.rejects(
    channel(again.socket).unary(api, 'FetchJWTSVID', { audience: ['x'] }, { metadata: header }),
    (fault: Fault) => fault.status === 14,
  );
});

test('back with its server it goes on from where it was, without a snapshot', async (t) => {
  const { clock, server, served, start, channel } = await running(t);
  server.put({ id: 'a', selectors: mine });
  const first = await start();
  await fetchX509(channel(first.socket));
  await first.close();
  await served.stop();
  const again = await start();
  // It serves before it dials: so that it has found nobody before its server comes.
  while (again.status().outage === undefined) await clock.advance(10);
  await served.start();
  server.put({ id: 'b', selectors: mine });
  const stream = channel(again.socket).stream(api, 'FetchX509SVID', {}, { metadata: header });
  assert.equal((await stream.next()).value.svids.length, 1);
  const next = stream.next();
  let done = false;
  void next.finally(() => {
    done = true;
  });
  // In small steps: connecting takes real time, in which an SVID must not come of age.
  while (!done) await clock.advance(50);
  assert.equal((await next).value.svids.length, 2);
  assert.match(server.starts.at(-1)!, /^log@/);
  await stream.return?.();
});

test('a data directory of another trust domain is refused before anything is contacted', async (t) => {
  const { server, start } = await running(t);
  await (await start()).close();
  server.calls.length = 0;
  await assert.rejects(start({ trustDomain: 'other.org' }), (fault: Fault) => fault.code === 'data/foreign');
  assert.deepEqual(server.calls, []);
});

test('a root known by its hash is enough to begin; another hash is not', async (t) => {
  const { server, start } = await running(t);
  const hash = createHash('sha256').update(server.authority.der).digest('hex');
  await assert.rejects(start({ trustRootHash: 'ab'.repeat(32) }), (fault: Fault) => fault.code === 'peer/untrusted');
  assert.equal(server.count('AttestAgent'), 0);
  const agent = await start({ trustRootHash: hash });
  assert.equal(agent.status().node, 'attested');
});

test('insecure bootstrap believes the server once, and then only what it got', async (t) => {
  const { served, server, start } = await running(t);
  const agent = await start({ insecureBootstrap: true });
  await agent.close();
  const kept = JSON.parse(readFileSync(join(served.directory, 'agent', 'state', 'node.json'), 'utf8'));
  assert.equal(kept.bundle.x509[0].certificate, server.authority.der.toString('base64'));
});

test('a server that is not of the bundle is refused, and no token goes to it', async (t) => {
  const { clock, served, server, start } = await running(t);
  const other = testAuthority({ now: clock.now() });
  const pem = `-----BEGIN CERTIFICATE-----\n${other.der
    .toString('base64')
    .match(/.{1,64}/g)!
    .join('\n')}\n-----END CERTIFICATE-----\n`;
  writeFileSync(join(served.directory, 'other.pem'), pem);
  const started = assert.rejects(
    start({ trustBundle: join(served.directory, 'other.pem') }),
    (fault: Fault) => fault.code === 'peer/untrusted',
  );
  let done = false;
  void started.finally(() => {
    done = true;
  });
  while (!done) await clock.advance(5_000);
  await started;
  assert.deepEqual(server.calls, []);
  assert.ok(server.tokens.has('the-token'));
});

const banAll = (server: FakeServer): void => {
  for (const node of server.nodes.values()) node.banned = true;
};

for (const [name, end, kept] of [
  ['banned', banAll, ['node.json']],
  ['evicted', (server: FakeServer) => server.nodes.clear(), ['node.json']],
] as const) {
  test(`${name}: the agent ends, its sockets go, and nothing of its identity or its workloads’ stays on disk`, async (t) => {
    const { clock, served, server, start, channel } = await running(t);
    server.put({ id: 'a', selectors: mine });
    const agent = await start();
    await fetchX509(channel(agent.socket));
    await clock.advance(3_000);
    end(server);
    server.put({ id: 'b', selectors: mine });
    const closed = assert.rejects(agent.closed, (fault: Fault) => fault.code === 'caller/denied');
    let done = false;
    void closed.finally(() => {
      done = true;
    });
    while (!done) await clock.advance(1_000);
    await closed;
    assert.equal(existsSync(agent.socket), false);
    assert.deepEqual(readdirSync(join(served.directory, 'agent', 'state')), [...kept]);
    assert.equal(
      JSON.parse(readFileSync(join(served.directory, 'agent', 'state', 'node.json'), 'utf8')).svid,
      undefined,
    );
  });
}

test('the agent’s own SVID is renewed at half life and the new one is what it shows the server', async (t) => {
  const { clock, server, start } = await running(t);
  const agent = await start();
  const before = server.nodes.get(agent.id)!.serial;
  while (server.count('RenewAgent') === 0) await clock.advance(minute);
  // The stream of changes moves to a connection with the new SVID, which makes it the current one.
  while (server.nodes.get(agent.id)!.serial === before) await clock.advance(100);
  assert.equal(server.count('RenewAgent'), 1);
  assert.equal(agent.status().node, 'attested');
});

test('ready only while the server can be reached, live all the time', async (t) => {
  const { clock, served, start } = await running(t);
  const agent = await start({ healthListen: '127.0.0.1:0' });
  const ask = async (path: string) => (await fetch(`http://127.0.0.1:${agent.health!.port}${path}`)).status;
  assert.deepEqual([await ask('/live'), await ask('/ready')], [200, 200]);
  await served.stop();
  while (agent.status().outage === undefined) await clock.advance(1_000);
  assert.deepEqual([await ask('/live'), await ask('/ready')], [200, 503]);
});
