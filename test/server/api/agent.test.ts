/** Nodes over the API: tokens, attestation, renewal, expulsion, and what operators are told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { Status } from '../../../src/errors.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { node } from '../../suites/store.ts';
import {
  type AgentPeer,
  api,
  attestWith,
  id,
  refusalOf,
  svidOf,
  type TestServer,
  testServer,
  wireId,
  wireSelectors,
} from '../../support/server.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message.
type Message = any;
const own = (agent: AgentPeer) => ({ id: wireId(agent.id.slice(20)) });
const token = (server: TestServer, more: object = {}): Promise<Message> =>
  server.admin.call('agent', 'CreateJoinToken', { ttl: 60, ...more });
const join = (server: TestServer, value: string) => attestWith(server.nobody.channel, 'join_token', Buffer.from(value));
const csr = () => makeCsr(generateKey('ec-p256').privateKey);

test('join tokens', async (t) => {
  const server = await testServer(t);

  await t.test('one is made with the lifetime asked for, its value chosen or a UUID', async () => {
    const made = await token(server);
    assert.match(made.value, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(made.expires_at, String(server.clock.now() / 1000 + 60));
    assert.equal((await token(server, { token: 'chosen' })).value, 'chosen');
    assert.equal(
      (await server.admin.refusal('agent', 'CreateJoinToken', { ttl: 60, token: 'chosen' })).status,
      Status.ALREADY_EXISTS,
    );
  });

  for (const [what, request] of [
    ['no lifetime', { ttl: 0 }],
    ['a negative lifetime', { ttl: -5 }],
    ['a slash in the token', { token: 'a/b' }],
    ['a token that is a path segment of its own kind', { token: '..' }],
    ['a token of 201 characters', { token: 'x'.repeat(201) }],
    ['an alias in another trust domain', { agent_id: { trust_domain: 'b.org', path: '/a' } }],
    ['a reserved alias', { agent_id: wireId('/spire/agent/x') }],
    ['an alias without a path', { agent_id: { trust_domain: 'example.org', path: '' } }],
  ] as [string, object][]) {
    await t.test(`SPI-01-007 refused: ${what}, and no token is left behind`, async () => {
      const fault = await server.admin.refusal('agent', 'CreateJoinToken', { ttl: 60, ...request });
      assert.equal(fault.status, Status.INVALID_ARGUMENT);
    });
  }

  await t.test(
    'a node that joins has the ID of its token, no selectors, an SVID as long as configured, and may not attest again',
    async () => {
      const { value } = await token(server);
      const svid = await join(server, value);
      assert.equal(svid.id, `spiffe://example.org/spire/agent/join_token/${value}`);
      assert.equal(svid.reattestable, false);
      assert.equal(svid.leaf.notAfter, server.clock.now() + 3_600_000);
      const agent = await server.admin.call('agent', 'GetAgent', { id: wireId(`/spire/agent/join_token/${value}`) });
      assert.deepEqual(agent, {
        id: wireId(`/spire/agent/join_token/${value}`),
        attestation_type: 'join_token',
        x509svid_serial_number: svid.leaf.serial.toString(),
        x509svid_expires_at: String(svid.leaf.notAfter / 1000),
        selectors: [],
        banned: false,
        can_reattest: false,
        agent_version: '',
      });
    },
  );

  await t.test('SPIRE 1.14.6 join token: of 200 callers with one token at once exactly one gets in', async () => {
    const { value } = await token(server);
    const peers = Array.from({ length: 20 }, () => server.as({ chain: [], key: generateKey('ec-p256').privateKey }));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 200 }, (_, index) =>
        attestWith(peers[index % 20]!.channel, 'join_token', Buffer.from(value)),
      ),
    );
    const winners = outcomes.filter(({ status }) => status === 'fulfilled');
    assert.equal(winners.length, 1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected')
        assert.equal(outcome.reason.status, Status.INVALID_ARGUMENT, outcome.reason.message);
  });

  await t.test('a token works once, and the refusals do not name it', async () => {
    const { value } = await token(server);
    await join(server, value);
    const used = await refusalOf(join(server, value));
    assert.deepEqual([used.status, used.message.includes(value)], [Status.INVALID_ARGUMENT, false]);
    assert.match(used.message, /does not exist or has already been used/);
    for (const wrong of ['unknown', '', 'a/b', '..', '\u0000', 'x'.repeat(300), 'é']) {
      if (wrong === '') continue;
      assert.equal((await refusalOf(join(server, wrong))).status, Status.INVALID_ARGUMENT, wrong);
    }
  });

  await t.test('an expired token is refused, to the second, and is not used up by trying', async () => {
    const { value, expires_at } = await token(server, { ttl: 10 });
    await server.clock.advance(Number(expires_at) * 1000 - server.clock.now() - 1);
    const { value: other } = await token(server, { ttl: 10 });
    await server.clock.advance(1);
    assert.match((await refusalOf(join(server, value))).message, /join token expired/);
    await join(server, other);
  });

  await t.test(
    'SPIRE 1.15.2 join token alias: it holds for the node of the token, and goes with it when it is evicted',
    async () => {
      const { value } = await token(server, { agent_id: wireId('/alias') });
      const web = await server.entry('/web', id('/alias'));
      const { entries } = await server.admin.call('entry', 'ListEntries', {
        filter: { by_spiffe_id: wireId('/alias') },
      });
      const agentId = `/spire/agent/join_token/${value}`;
      assert.deepEqual(
        [entries.length, entries[0].parent_id, entries[0].selectors],
        [1, wireId(agentId), [{ type: 'spiffe_id', value: id(agentId) }]],
      );
      const agent = server.as(await join(server, value));
      assert.deepEqual((await agent.call('entry', 'GetAuthorizedEntries')).entries, [entries[0], web]);
      await server.admin.call('agent', 'DeleteAgent', { id: wireId(agentId) });
      assert.equal(
        (await server.admin.call('entry', 'CountEntries', { filter: { by_spiffe_id: wireId('/alias') } })).count,
        0,
      );
      assert.equal((await agent.refusal('entry', 'GetAuthorizedEntries')).reason, 'AGENT_NOT_ATTESTED');
    },
  );
});

test('attestation', async (t) => {
  const server = await testServer(t);
  const talkOf = (...messages: object[]) => {
    const talk = server.nobody.channel.bidi(api.agent, 'AttestAgent');
    for (const message of messages) void talk.send(message);
    return talk;
  };
  for (const [what, first, says] of [
    ['no params', {}, /missing params/],
    ['a challenge response first', { challenge_response: Buffer.from('x') }, /missing params/],
    ['no data', { params: { params: { csr: csr() } } }, /missing attestation data/],
    [
      'no type',
      { params: { data: { type: '', payload: Buffer.from('x') }, params: { csr: csr() } } },
      /missing attestation data type/,
    ],
    [
      'no payload',
      { params: { data: { type: 'join_token' }, params: { csr: csr() } } },
      /missing attestation data payload/,
    ],
    [
      'no SVID parameters',
      { params: { data: { type: 'join_token', payload: Buffer.from('x') } } },
      /missing X509-SVID parameters/,
    ],
    ['no CSR', { params: { data: { type: 'join_token', payload: Buffer.from('x') }, params: {} } }, /CSR/],
  ] as [string, object, RegExp][]) {
    await t.test(`refused: ${what}`, async () => {
      const fault = await refusalOf(talkOf(first).responses.next());
      assert.equal(fault.status, Status.INVALID_ARGUMENT);
      assert.match(fault.message, says);
    });
  }

  await t.test('a method that is not switched on is FAILED_PRECONDITION, and says which are', async () => {
    const fault = await refusalOf(attestWith(server.nobody.channel, 'x509pop', Buffer.from('x')));
    assert.equal(fault.status, Status.FAILED_PRECONDITION);
    assert.match(fault.message, /"x509pop".*accepts: join_token/);
  });

  await t.test('a CSR that is hostile or not signed by its own key is refused, and the token stays good', async () => {
    const { value } = await token(server);
    const swapped = csr();
    swapped[swapped.length - 1]! ^= 1;
    for (const bad of [
      Buffer.from('no csr'),
      Buffer.concat([csr(), Buffer.of(0)]),
      swapped,
      Buffer.alloc(20_000, 0x30),
    ]) {
      const talk = talkOf({
        params: { data: { type: 'join_token', payload: Buffer.from(value) }, params: { csr: bad } },
      });
      assert.equal((await refusalOf(talk.responses.next())).status, Status.INVALID_ARGUMENT);
    }
    await join(server, value);
  });

  await t.test('cure53 SPI-01-004 what a CSR says of itself counts for nothing', async () => {
    const { value } = await token(server);
    const { privateKey } = generateKey('ec-p256');
    const talk = talkOf({
      params: {
        data: { type: 'join_token', payload: Buffer.from(value) },
        params: { csr: makeCsr(privateKey, { uri: id('/spire/server'), dnsNames: ['evil'] }) },
      },
    });
    const svid = svidOf((await talk.responses.next()).value.result.svid, privateKey);
    assert.equal(svid.id, id(`/spire/agent/join_token/${value}`));
    assert.deepEqual([svid.leaf.uris, svid.leaf.dnsNames, svid.leaf.commonName], [[svid.id], [], undefined]);
  });

  await t.test('one that is left silent is ended after a minute', async () => {
    const talk = talkOf();
    const waiting = refusalOf(talk.responses.next());
    await server.nobody.call('bundle', 'GetBundle');
    await server.clock.advance(60_000);
    const fault = await waiting;
    assert.equal(fault.status, Status.DEADLINE_EXCEEDED);
    assert.match(fault.message, /not finished within 60 seconds/);
  });
});

test('renewal and status', async (t) => {
  const server = await testServer(t);

  await t.test(
    'RenewAgent gives a second serial, which becomes the first when it is used; another renewal replaces one never used',
    async () => {
      const agent = await server.attest();
      const renew = async () => {
        const { privateKey } = generateKey('ec-p256');
        return svidOf(
          (await agent.call('agent', 'RenewAgent', { params: { csr: makeCsr(privateKey) } })).svid,
          privateKey,
        );
      };
      const [lost, next] = [await renew(), await renew()];
      assert.equal(next.id, agent.id);
      const serial = async () => (await server.admin.call('agent', 'GetAgent', own(agent))).x509svid_serial_number;
      assert.equal(await serial(), agent.svid.leaf.serial.toString());
      assert.equal((await server.as(lost).refusal('agent', 'PostStatus')).reason, 'AGENT_NOT_ACTIVE');
      const users = Array.from({ length: 5 }, () => server.as(next));
      await Promise.all(users.map((one) => one.call('agent', 'PostStatus')));
      assert.equal(await serial(), next.leaf.serial.toString());
      assert.equal((await agent.refusal('agent', 'PostStatus')).reason, 'AGENT_NOT_ACTIVE');
    },
  );

  await t.test('a node that can attest again is told to', async () => {
    const agent = await server.attest();
    const stored = await server.store.nodes.get(agent.id);
    await server.store.nodes.attest({ ...stored!, canReattest: true });
    const fault = await agent.refusal('agent', 'RenewAgent', { params: { csr: csr() } });
    assert.deepEqual([fault.status, fault.reason], [Status.PERMISSION_DENIED, 'AGENT_MUST_REATTEST']);
  });

  await t.test('Teleport 10.3.11 no params, no CSR, another key’s CSR: refused', async () => {
    const agent = await server.attest();
    const forged = csr();
    forged[forged.length - 1]! ^= 1;
    for (const params of [null, {}, { csr: Buffer.from('x') }, { csr: forged }])
      assert.equal((await agent.refusal('agent', 'RenewAgent', { params })).status, Status.INVALID_ARGUMENT);
  });

  await t.test('PostStatus keeps the version, up to 255 characters, through renewal and attestation', async () => {
    const agent = await server.attest();
    await agent.call('agent', 'PostStatus', { agent_version: '1.13.3' });
    assert.equal((await server.admin.call('agent', 'GetAgent', own(agent))).agent_version, '1.13.3');
    assert.equal(
      (await agent.refusal('agent', 'PostStatus', { agent_version: 'x'.repeat(256) })).status,
      Status.INVALID_ARGUMENT,
    );
    await agent.call('agent', 'PostStatus', { agent_version: 'x'.repeat(255) });
  });
});

test('expulsion', async (t) => {
  const server = await testServer(t);
  for (const method of ['GetAgent', 'DeleteAgent', 'BanAgent']) {
    await t.test(`${method}: no ID, one that is no agent, a foreign one, an unknown one`, async () => {
      for (const wrong of [
        null,
        wireId('/web'),
        wireId('/spire/server'),
        wireId('/spire/agent'),
        { trust_domain: 'b.org', path: '/spire/agent/x' },
      ])
        assert.equal((await server.admin.refusal('agent', method, { id: wrong })).status, Status.INVALID_ARGUMENT);
      const unknown = await server.admin.refusal('agent', method, { id: wireId('/spire/agent/x509pop/nobody') });
      assert.deepEqual([unknown.status, unknown.message], [Status.NOT_FOUND, 'agent not found']);
    });
  }

  await t.test(
    'a banned agent is shown as banned, stays so when banned again, and attests no more until it is evicted',
    async () => {
      const agent = await server.attest('again');
      await server.admin.call('agent', 'BanAgent', own(agent));
      await server.admin.call('agent', 'BanAgent', own(agent));
      const shown = await server.admin.call('agent', 'GetAgent', own(agent));
      assert.deepEqual([shown.banned, shown.x509svid_serial_number], [true, '']);
      await token(server, { token: 'again' });
      const fault = await refusalOf(join(server, 'again'));
      assert.deepEqual(
        [fault.status, fault.reason],
        [Status.PERMISSION_DENIED, undefined],
        'no details: an agent then stops for good',
      );
      await server.admin.call('agent', 'DeleteAgent', own(agent));
      await join(server, 'again');
      assert.equal((await server.admin.call('agent', 'GetAgent', own(agent))).banned, false);
    },
  );
});

test('ListAgents and CountAgents', async (t) => {
  const server = await testServer(t);
  const at = Math.floor(server.clock.now() / 1000);
  const nodes = [
    node('/spire/agent/x509pop/a', { selectors: ['a:1', 'b:2'].map(parseSelector), expiresAt: at + 10 }),
    node('/spire/agent/x509pop/b', { selectors: ['a:1'].map(parseSelector), expiresAt: at + 20, serial: '' }),
    node('/spire/agent/join_token/c', {
      attestationType: 'join_token',
      selectors: [],
      canReattest: false,
      expiresAt: at + 30,
    }),
    node('/spire/agent/x509pop/d', { selectors: ['b:2', 'c:3'].map(parseSelector), expiresAt: at + 40 }),
  ];
  for (const one of nodes) await server.store.nodes.attest({ ...one, serial: '17' });
  await server.store.nodes.ban(nodes[1]!.id);
  // Attested anew: it keeps its place.
  await server.store.nodes.attest({ ...nodes[0]!, serial: '18' });
  const goTime = (seconds: number, zone = '+0000 UTC') =>
    `${new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ')} ${zone}`;
  const names = ({ agents }: Message) => agents.map((agent: Message) => agent.id.path.slice(-1)).join('');
  const select = (match: string, ...texts: string[]) => ({
    by_selector_match: { match, selectors: wireSelectors(...texts) },
  });

  for (const [what, filter, found] of [
    ['nothing', {}, 'abcd'],
    ['type', { by_attestation_type: 'join_token' }, 'c'],
    ['exact selectors', select('MATCH_EXACT', 'a:1', 'b:2'), 'a'],
    ['a superset', select('MATCH_SUPERSET', 'b:2'), 'ad'],
    ['any', select('MATCH_ANY', 'a:1', 'c:3'), 'abd'],
    ['banned', { by_banned: { value: true } }, 'b'],
    ['not banned', { by_banned: { value: false } }, 'acd'],
    ['able to attest again', { by_can_reattest: { value: true } }, 'abd'],
    ['unable', { by_can_reattest: { value: false } }, 'c'],
    ['expiry', { by_expires_before: goTime(at + 30) }, 'ab'],
    ['expiry in another zone', { by_expires_before: goTime(at + 2 * 3600 + 31, '+0200 +02') }, 'abc'],
    ['two at once', { by_banned: { value: false }, by_attestation_type: 'x509pop' }, 'ad'],
  ] as [string, object, string][]) {
    await t.test(`by ${what}, in pages too`, async () => {
      assert.equal(names(await server.admin.call('agent', 'ListAgents', { filter })), found);
      assert.equal((await server.admin.call('agent', 'CountAgents', { filter })).count, found.length);
      let seen = '';
      let page_token = '';
      do {
        const page = await server.admin.call('agent', 'ListAgents', { filter, page_size: 1, page_token });
        assert.ok(page.agents.length === 1 || found === '');
        seen += names(page);
        page_token = page.next_page_token;
      } while (page_token !== '');
      assert.equal(seen, found);
    });
  }

  await t.test('a subset of selectors: what holds nothing is in no subset', async () => {
    assert.equal(
      names(await server.admin.call('agent', 'ListAgents', { filter: select('MATCH_SUBSET', 'a:1', 'b:2') })),
      'ab',
    );
  });

  await t.test('masks: all but the id can be left out', async () => {
    const { agents } = await server.admin.call('agent', 'ListAgents', {
      output_mask: { banned: true, agent_version: true },
    });
    assert.deepEqual(
      [agents[1].id, agents[1].banned, agents[1].selectors, agents[1].attestation_type],
      [wireId('/spire/agent/x509pop/b'), true, [], ''],
    );
    const shown = await server.admin.call('agent', 'GetAgent', {
      id: wireId('/spire/agent/x509pop/a'),
      output_mask: { selectors: true },
    });
    assert.deepEqual([shown.selectors, shown.x509svid_serial_number], [wireSelectors('a:1', 'b:2'), '']);
  });

  await t.test('refused: an empty selector set, a time nobody can read, a token nobody gave', async () => {
    for (const request of [
      { filter: { by_selector_match: { selectors: [] } } },
      { filter: { by_expires_before: 'tomorrow' } },
      { filter: { by_expires_before: '2026-13-01 00:00:00 +0000 UTC' } },
      { page_size: 5, page_token: 'x' },
    ]) {
      assert.equal((await server.admin.refusal('agent', 'ListAgents', request)).status, Status.INVALID_ARGUMENT);
    }
  });

  await t.test('SPIRE 1.9.3 a page size of 2^31-1 costs nothing', async () =>
    assert.equal(names(await server.admin.call('agent', 'ListAgents', { page_size: 2 ** 31 - 1 })), 'abcd'),
  );
});
