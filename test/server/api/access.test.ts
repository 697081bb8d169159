/** Every method of the contracts times every kind of caller, over real connections. The table is spire-wire's, typed anew. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { test } from 'node:test';
import { access } from '../../../server/api/access.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { type Fault, Status } from '../../../src/errors.ts';
import { loadService, packageFiles } from '../../../src/rpc/load.ts';
import { parseId } from '../../../src/spiffe/id.ts';
import { type IssuedSvid, testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import {
  type AgentPeer,
  api,
  type Credentials,
  id,
  type Peer,
  refusalOf,
  svidOf,
  type TestServer,
  testServer,
  wireId,
} from '../../support/server.ts';

/** L the admin socket, A admin, G agent, D downstream, * anybody. `local`: not offered on TCP at all. */
const table: Record<string, Record<string, string>> = {
  agent: {
    CountAgents: 'LA',
    ListAgents: 'LA',
    GetAgent: 'LA',
    DeleteAgent: 'LA',
    BanAgent: 'LA',
    AttestAgent: '*',
    RenewAgent: 'G',
    CreateJoinToken: 'LA',
    PostStatus: 'G',
  },
  bundle: {
    CountBundles: 'LA',
    GetBundle: '*',
    AppendBundle: 'LA',
    PublishJWTAuthority: 'D',
    PublishWITAuthority: 'D',
    ListFederatedBundles: 'LA',
    GetFederatedBundle: 'LAG',
    BatchCreateFederatedBundle: 'LA',
    BatchUpdateFederatedBundle: 'LA',
    BatchSetFederatedBundle: 'LA',
    BatchDeleteFederatedBundle: 'LA',
  },
  entry: {
    CountEntries: 'LA',
    ListEntries: 'LA',
    GetEntry: 'LA',
    BatchCreateEntry: 'LA',
    BatchUpdateEntry: 'LA',
    BatchDeleteEntry: 'LA',
    GetAuthorizedEntries: 'G',
    SyncAuthorizedEntries: 'G',
  },
  svid: {
    MintX509SVID: 'LA',
    MintJWTSVID: 'LA',
    MintWITSVID: 'LA',
    BatchNewX509SVID: 'G',
    NewJWTSVID: 'G',
    BatchNewWITSVID: 'G',
    NewDownstreamX509CA: 'D',
  },
  trustDomain: {
    ListFederationRelationships: 'LA',
    GetFederationRelationship: 'LA',
    BatchCreateFederationRelationship: 'LA',
    BatchUpdateFederationRelationship: 'LA',
    BatchDeleteFederationRelationship: 'LA',
    RefreshBundle: 'LA',
  },
  localAuthority: {
    GetJWTAuthorityState: 'LA',
    PrepareJWTAuthority: 'LA',
    ActivateJWTAuthority: 'LA',
    TaintJWTAuthority: 'LA',
    RevokeJWTAuthority: 'LA',
    GetX509AuthorityState: 'LA',
    PrepareX509Authority: 'LA',
    ActivateX509Authority: 'LA',
    TaintX509Authority: 'LA',
    TaintX509UpstreamAuthority: 'LA',
    RevokeX509Authority: 'LA',
    RevokeX509UpstreamAuthority: 'LA',
    GetWITAuthorityState: 'LA',
    PrepareWITAuthority: 'LA',
    ActivateWITAuthority: 'LA',
    TaintWITAuthority: 'LA',
    RevokeWITAuthority: 'LA',
  },
  logger: { GetLogger: 'local', SetLogLevel: 'local', ResetLogLevel: 'local' },
  debug: { GetInfo: 'local' },
  health: { Check: 'local', Watch: 'local', List: 'local' },
  rotation: { StartRotation: 'LA', AdvanceRotation: 'LA', GetRotation: 'LA' },
  sync: { Watch: 'G', Position: 'G' },
  revocation: { Revoke: 'LA', Coverage: 'LA', List: 'LA' },
};

type Name = keyof typeof api;
const methods = Object.entries(table).flatMap(([service, of]) =>
  Object.entries(of).map(([method, who]) => ({ service: service as Name, method, who })),
);

/** Calls with an empty request; gives what it was refused with, if it was. */
async function outcome({ channel }: Peer, service: Name, method: string): Promise<Fault | undefined> {
  const definition = loadService(api[service])[method];
  const finished = (async () => {
    if (!definition?.responseStream) return channel.unary(api[service], method, {});
    if (!definition.requestStream) {
      for await (const _ of channel.stream(api[service], method, {})) break;
      return undefined;
    }
    const talk = channel.bidi(api[service], method);
    talk.end();
    for await (const _ of talk.responses) break;
    return undefined;
  })();
  return finished.then(
    () => undefined,
    () => refusalOf(finished),
  );
}

/**
 * Checks every method for one caller.
 * @param letters what the caller is
 * @param reason what it is told of methods for agents
 */
async function checkAll(peer: Peer, letters: string, reason?: string, over: 'tls' | 'unix' = 'tls'): Promise<void> {
  for (const { service, method, who } of methods) {
    const at = `${service}.${method}`;
    const fault = await outcome(peer, service, method);
    if (who === 'local' && over === 'tls') {
      assert.equal(fault?.status, Status.UNIMPLEMENTED, at);
    } else if (who === 'local' || who === '*' || [...letters].some((letter) => who.includes(letter))) {
      assert.notEqual(fault?.code, 'caller/denied', `${at} is allowed, but: ${fault?.message}`);
    } else if (service === 'sync' && over === 'unix') {
      assert.equal(fault?.status, Status.UNIMPLEMENTED, at);
    } else {
      assert.equal(fault?.code, 'caller/denied', `${at} is refused`);
      assert.equal(fault?.message, `authorization denied for method /${api[service]}/${method}`);
      assert.equal(fault?.reason, who.includes('G') ? reason : undefined, `${at}: the reason`);
    }
  }
}

const fixtures = {
  clock: drivenClock(),
  flags: { adminIds: ['spiffe://example.org/ops', 'spiffe://b.org/ops'] },
};
const held = ({ chain, key }: IssuedSvid): Credentials => ({
  chain,
  key: createPrivateKey({ key: key!.exportPkcs8(), format: 'der', type: 'pkcs8' }),
});
const renew = async (agent: AgentPeer) => {
  const { privateKey } = generateKey('ec-p256');
  const { svid } = await agent.call('agent', 'RenewAgent', { params: { csr: makeCsr(privateKey) } });
  return svidOf(svid, privateKey);
};

test('the table of this test and the one of the server name every method of the contracts, and no other', () => {
  const contracts = Object.keys(api).flatMap((service) =>
    Object.keys(loadService(api[service as Name])).map((method) => `/${api[service as Name]}/${method}`),
  );
  assert.deepEqual(Object.keys(access).sort(), contracts.sort());
  assert.deepEqual(methods.map(({ service, method }) => `/${api[service]}/${method}`).sort(), contracts);
  const packages = Object.keys(packageFiles).filter((name) => /^(spire\.api|mutual)\.server|^grpc/.test(name));
  const looked = new Set(Object.values(api).map((service) => service.replace(/\.\w+$/, '')));
  assert.deepEqual([...looked].sort(), packages.sort(), 'every package with a service of the server is looked at');
});

test('who may call what', async (t) => {
  const server: TestServer = await testServer(t, { clock: fixtures.clock, flags: fixtures.flags });
  const foreign = testAuthority({ trustDomain: 'b.org', now: server.clock.now() });
  await server.store.bundles.put(foreign.bundle(), 'any');
  const agentIds = id('/spire/agent/join_token/x');

  await t.test('the admin socket: everything but what only agents and downstream servers may', () =>
    checkAll(server.admin, 'L', undefined, 'unix'),
  );
  await t.test('CVE-2022-39388 nobody, on the loopback address too: only attestation and the bundle', () =>
    checkAll(server.nobody, ''),
  );
  await t.test('a workload: no more than nobody', async () =>
    checkAll(server.as(await server.mint('/workload')), '', 'AGENT_NOT_ATTESTED'),
  );
  await t.test('an agent', async () => checkAll(await server.attest(), 'G'));
  await t.test('a banned agent', async () => {
    const agent = await server.attest();
    await server.admin.call('agent', 'BanAgent', { id: wireId(agent.id.slice(20)) });
    await checkAll(agent, '', 'AGENT_BANNED');
  });
  await t.test('an evicted agent', async () => {
    const agent = await server.attest();
    await server.admin.call('agent', 'DeleteAgent', { id: wireId(agent.id.slice(20)) });
    await checkAll(agent, '', 'AGENT_NOT_ATTESTED');
  });
  await t.test(
    'an agent with its renewed SVID; the old one counts until the new one is used, and never again',
    async () => {
      const agent = await server.attest();
      const next = await renew(agent);
      assert.equal(await outcome(agent, 'entry', 'GetAuthorizedEntries'), undefined);
      await checkAll(server.as(next), 'G');
      await checkAll(agent, '', 'AGENT_NOT_ACTIVE');
    },
  );
  await t.test('an admin by its entry, whichever of several entries says so', async () => {
    await server.entry('/boss', agentIds);
    await server.entry('/boss', agentIds, { admin: true, selectors: [{ type: 'unix', value: 'uid:0' }] });
    await checkAll(server.as(await server.mint('/boss')), 'A', 'AGENT_NOT_ATTESTED');
  });
  await t.test('an admin by the configuration, of this trust domain', async () =>
    checkAll(server.as(await server.mint('/ops')), 'A', 'AGENT_NOT_ATTESTED'),
  );
  await t.test('an admin by the configuration, of another trust domain', async () =>
    checkAll(server.as(held(foreign.issue({ id: 'spiffe://b.org/ops' }))), 'A', 'AGENT_NOT_ATTESTED'),
  );
  await t.test('a downstream server', async () => {
    await server.entry('/nested', agentIds, { downstream: true });
    await checkAll(server.as(await server.mint('/nested')), 'D', 'AGENT_NOT_ATTESTED');
  });
  await t.test('an entry grants nothing to a foreign ID of the same path, nor after it is gone', async () => {
    const peer = server.as(await server.mint('/boss'));
    const { entries } = await peer.call('entry', 'ListEntries', { filter: { by_spiffe_id: wireId('/boss') } });
    await server.admin.call('entry', 'BatchDeleteEntry', {
      ids: entries.filter((one: { admin: boolean }) => one.admin).map((one: { id: string }) => one.id),
    });
    assert.equal((await outcome(peer, 'entry', 'CountEntries'))?.code, 'caller/denied', 'the other entry is no admin');
  });
  for (const [what, credentials] of [
    [
      'another trust domain that has a bundle here, but whose ID is no admin',
      held(foreign.issue({ id: 'spiffe://b.org/other' })),
    ],
    ['an agent of another trust domain', held(foreign.issue({ id: 'spiffe://b.org/spire/agent/join_token/x' }))],
    ['this trust domain, by a foreign authority', held(foreign.issue({ id: 'spiffe://example.org/ops' }))],
    ['a trust domain without a bundle', held(testAuthority({ trustDomain: 'c.org', now: server.clock.now() }).issue())],
    [
      'an expired SVID',
      held(
        foreign.issue({
          id: 'spiffe://b.org/ops',
          notBefore: server.clock.now() - 20_000,
          notAfter: server.clock.now() - 10_000,
        }),
      ),
    ],
  ] as const) {
    await t.test(`the connection of ${what} is refused as a whole`, async () => {
      const fault = await outcome(server.as(credentials), 'bundle', 'GetBundle');
      assert.equal(fault?.status, Status.UNAVAILABLE);
      assert.ok(
        server.lines.some((line) => line.includes('connection refused')),
        'and the operator can read why',
      );
    });
  }
});

test('Nomad CVE-2022-3867 whoever expires inside a living connection has no rights left', async (t) => {
  const server = await testServer(t, { flags: { agentTtl: '60s', adminIds: ['spiffe://example.org/ops'] } });
  const agent = await server.attest();
  const admin = server.as(await server.mint('/ops', { ttl: 60 }));
  await server.entry('/nested', agent.id, { downstream: true });
  const nested = server.as(await server.mint('/nested', { ttl: 60 }));
  assert.equal(await outcome(agent, 'entry', 'GetAuthorizedEntries'), undefined);
  assert.equal(await outcome(admin, 'entry', 'CountEntries'), undefined);
  assert.equal((await outcome(nested, 'bundle', 'PublishJWTAuthority'))?.code, 'input/invalid');
  // No timer has fired yet, which also ends the connections.
  server.clock.jump(61_000);
  await checkAll(agent, '', 'AGENT_EXPIRED');
  await checkAll(admin, '', 'AGENT_EXPIRED');
  await checkAll(nested, '', 'AGENT_EXPIRED');
});

test('a connection is closed when its SVID ends, its streams say why, and it is not let in again', async (t) => {
  const server = await testServer(t, { flags: { agentTtl: '60s', adminIds: ['spiffe://example.org/ops'] } });
  const admin = server.as(await server.mint('/ops', { ttl: 60 }));
  const agent = await server.attest();
  await agent.call('sync', 'Position');
  const watch = agent.channel.bidi(api.sync, 'Watch');
  const poll = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries');
  await admin.call('entry', 'CountEntries');
  await server.clock.advance(49_000);
  await agent.call('sync', 'Position');
  assert.equal(await outcome(admin, 'entry', 'CountEntries'), undefined);
  await server.clock.advance(12_000);
  for (const talk of [watch, poll]) {
    const { code, reason } = await refusalOf(talk.responses.next());
    assert.deepEqual([code, reason], ['caller/denied', 'AGENT_EXPIRED']);
  }
  // On its connection each would be told that it may not; there is none any more.
  for (const peer of [agent, admin]) {
    const fault = await outcome(peer, 'bundle', 'GetBundle');
    assert.equal(fault?.status, Status.UNAVAILABLE);
  }
});

test('CVE-2026-30836 a method that is not in the table is refused, whoever calls', async () => {
  const { accessControl } = await import('../../../server/api/access.ts');
  const { emptyWorld } = await import('../../../server/entries/world.ts');
  const check = accessControl({
    trustDomain: parseId('spiffe://example.org').slice(9) as never,
    isAdmin: () => false,
    world: emptyWorld(),
    nodes: {} as never,
    clock: fixtures.clock,
  });
  for (const method of [
    '/spire.api.server.agent.v1.Agent/NewMethod',
    '/toString',
    'constructor',
    '/__proto__',
    '__proto__',
  ]) {
    const call = { method, caller: { kind: 'unix' } } as never;
    const fault = await refusalOf((async () => check(call))());
    assert.deepEqual([fault.code, fault.message], ['caller/denied', `authorization denied for method ${method}`]);
  }
});
