/** The push over real connections: what cuts a stream and why, how large messages are, how a position moves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupMessages } from '../../../server/api/sync-group.ts';
import type { StoredEntry } from '../../../server/store/store.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { bundle, draft } from '../../suites/store.ts';
import { settle } from '../../support/clock.ts';
import { type AgentPeer, api, id, refusalOf, testServer, wireId, wireSelectors } from '../../support/server.ts';

function open(peer: AgentPeer, start: object = {}) {
  const talk = peer.channel.bidi(api.sync, 'Watch');
  void talk.send({ start: { position: '0', log_id: '', ...start } });
  return {
    talk,
    async next() {
      const { value, done } = await talk.responses.next();
      assert.ok(!done, 'the stream has ended');
      return value;
    },
  };
}

test('an agent gets its snapshot, then each change of what it may hold and nothing of others', async (t) => {
  const server = await testServer(t);
  const [one, two] = [await server.attest(), await server.attest()];
  const first = await server.entry('/first', one.id);
  await server.entry('/not-yours', two.id);
  const stream = open(one);
  const snapshot = await stream.next();
  assert.deepEqual([snapshot.snapshot, snapshot.complete], [true, true]);
  assert.deepEqual(snapshot.entries, [first]);
  assert.deepEqual(
    snapshot.bundles.map((held: { trust_domain: string }) => held.trust_domain),
    ['example.org'],
  );

  await server.entry('/neither-yours', two.id);
  const second = await server.entry('/second', one.id);
  const delta = await stream.next();
  assert.deepEqual([delta.snapshot, delta.complete, delta.entries], [false, true, [second]]);
  await server.admin.call('entry', 'BatchDeleteEntry', { ids: [first.id] });
  assert.deepEqual((await stream.next()).removed_entry_ids, [first.id]);
  stream.talk.end();
});

test('deleting an entry and what hangs on it in one call takes all of it from the agent', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const top = await server.entry('/top', agent.id);
  const middle = await server.entry('/middle', id('/top'));
  const bottom = await server.entry('/bottom', id('/middle'));
  const stream = open(agent);
  assert.equal((await stream.next()).entries.length, 3);
  await server.admin.call('entry', 'BatchDeleteEntry', { ids: [top.id, middle.id] });
  assert.deepEqual((await stream.next()).removed_entry_ids.sort(), [top.id, middle.id, bottom.id].sort());
  stream.talk.end();
});

for (const [what, act, reason] of [
  [
    'banned',
    (server, agent) => server.admin.call('agent', 'BanAgent', { id: wireId(agent.id.slice(20)) }),
    'AGENT_BANNED',
  ],
  [
    'evicted',
    (server, agent) => server.admin.call('agent', 'DeleteAgent', { id: wireId(agent.id.slice(20)) }),
    'AGENT_NOT_ATTESTED',
  ],
  ['expired', (server) => server.clock.advance(3_600_000), 'AGENT_EXPIRED'],
] as [string, (server: Awaited<ReturnType<typeof testServer>>, agent: AgentPeer) => Promise<unknown>, string][]) {
  test(`the stream of an agent that is ${what} is cut, with that reason`, async (t) => {
    const server = await testServer(t);
    const agent = await server.attest();
    await server.entry('/web', agent.id);
    const stream = open(agent);
    await stream.next();
    await act(server, agent);
    const refusal = await refusalOf(
      (async () => {
        // An eviction takes the entries first; that is told too, if there is time.
        for (;;) await stream.next();
      })(),
    );
    assert.deepEqual([refusal.code, refusal.reason], ['caller/denied', reason]);
  });

  test(`an agent that is ${what} before it sends its first message gets nothing for it`, async (t) => {
    const server = await testServer(t);
    const agent = await server.attest();
    await server.entry('/web', agent.id);
    const watch = agent.channel.bidi(api.sync, 'Watch');
    const poll = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries');
    // The headers are there, and have passed the access check, when another call on the same connection is answered.
    await agent.call('sync', 'Position');
    await act(server, agent);
    void watch.send({ start: { position: '0', log_id: '' } });
    void poll.send({ ids: [] });
    for (const talk of [watch, poll]) {
      const refusal = await refusalOf(talk.responses.next());
      assert.deepEqual([refusal.code, refusal.reason], ['caller/denied', reason]);
    }
  });
}

test('a stream ends when the agent has a newer SVID, so that nobody goes on with the old one', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const stream = open(agent);
  await stream.next();
  await server.store.nodes.renew(agent.id, '4711', Math.floor(server.clock.now() / 1000) + 3600);
  await server.entry('/web', agent.id);
  assert.equal((await stream.next()).entries.length, 1, 'the old SVID counts until the new one is used');
  await server.store.nodes.activate(agent.id, '4711');
  assert.deepEqual(await stream.talk.responses.next(), { done: true, value: undefined });
});

test('a stream ends when the node has other selectors; its next one is a snapshot', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  await server.entry('/alias', id('/spire/server'), { selectors: wireSelectors('x:1') });
  await server.entry('/web', id('/alias'));
  const stream = open(agent);
  const { position, log_id, entries } = await stream.next();
  assert.deepEqual(entries, []);
  const node = await server.store.nodes.get(agent.id);
  await server.store.nodes.attest({ ...node!, selectors: [parseSelector('x:1')] });
  assert.deepEqual(await stream.talk.responses.next(), { done: true, value: undefined });
  const next = await open(agent, { position, log_id }).next();
  assert.deepEqual([next.snapshot, next.entries.length], [true, 1]);
});

test('an agent that renewed, said its version or attested as the same again comes back without a snapshot', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const { position, log_id } = await open(agent).next();
  const node = (await server.store.nodes.get(agent.id))!;
  await server.store.nodes.renew(agent.id, '4711', node.expiresAt);
  await server.store.nodes.setVersion(agent.id, '9.9.9');
  await server.store.nodes.attest({ ...node, agentVersion: '9.9.9' });
  const resumed = await open(agent, { position, log_id }).next();
  assert.deepEqual([resumed.snapshot, resumed.entries], [false, []]);
  assert.equal(Number(resumed.position), Number(position) + 3);
});

test('an agent that comes back is told only what it missed; for another log, or a forgotten position, everything', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  await server.entry('/kept', agent.id);
  const first = open(agent);
  const { position, log_id } = await first.next();
  first.talk.end();
  const missed = await server.entry('/missed', agent.id);

  const resumed = await open(agent, { position, log_id }).next();
  assert.deepEqual([resumed.snapshot, resumed.entries], [false, [missed]]);
  for (const start of [
    { position, log_id: 'another' },
    { position: '18446744073709551615', log_id },
    { position: String(Number(resumed.position) + 1), log_id },
  ]) {
    assert.equal((await open(agent, start).next()).snapshot, true, JSON.stringify(start));
  }
  await server.store.log.prune(Number(resumed.position));
  assert.equal((await open(agent, { position: resumed.position, log_id }).next()).snapshot, false);
  // What the database has forgotten may still be in memory: either way nothing is missing.
  const old = await open(agent, { position: '1', log_id }).next();
  assert.ok(old.entries.some((entry: { id: string }) => entry.id === missed.id));
});

test('a link that went while agents were away is told, with what hung below it, to the agent it bound and costs the others nothing', async (t) => {
  const server = await testServer(t);
  const [one, two] = [await server.attest(), await server.attest()];
  const link = await server.entry('/link', one.id);
  const leaves: { id: string }[] = [];
  for (let i = 0; i < 20; i += 1) leaves.push(await server.entry(`/leaf/${i}`, id('/link')));
  const kept = await server.entry('/kept', two.id);
  const streams = [open(one), open(two)];
  const [, { position, log_id, entries }] = await Promise.all(streams.map((stream) => stream.next()));
  assert.deepEqual(entries, [kept]);
  for (const { talk } of streams) talk.end();
  await server.admin.call('entry', 'BatchDeleteEntry', { ids: [link.id] });
  const [bound, unbound] = await Promise.all([one, two].map((agent) => open(agent, { position, log_id }).next()));
  assert.deepEqual([bound.snapshot, unbound.snapshot], [false, false]);
  assert.deepEqual(bound.removed_entry_ids.sort(), [link, ...leaves].map((entry) => entry.id).sort());
  assert.deepEqual([unbound.entries, unbound.removed_entry_ids], [[], []]);
  assert.equal(unbound.position, bound.position);
});

test('whoever asks for the position has its stream brought up to it, though nothing concerned it', async (t) => {
  const server = await testServer(t);
  const [agent, other] = [await server.attest(), await server.attest()];
  const stream = open(agent);
  const before = await stream.next();
  await server.entry('/web', other.id);
  const { position, log_id } = await agent.call('sync', 'Position');
  assert.ok(Number(position) > Number(before.position));
  const message = await stream.next();
  assert.deepEqual([message.position, message.log_id, message.complete], [position, log_id, true]);
  assert.deepEqual([message.entries, message.removed_entry_ids, message.snapshot], [[], [], false]);
  stream.talk.end();
});

test('a question in the stream is answered in it, at a position where all that was committed before it is told', async (t) => {
  const server = await testServer(t);
  const [agent, other] = [await server.attest(), await server.attest()];
  const stream = open(agent);
  await stream.next();
  await server.entry('/web', other.id);
  await stream.talk.send({ ask: { id: '41' } });
  const message = await stream.next();
  assert.deepEqual([message.answer, message.complete, message.entries], ['41', true, []]);
  assert.equal(Number(message.position), await server.store.log.position());
  stream.talk.end();
});

test('a foreign bundle comes with the first entry that needs it, and its loss is told', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  await server.store.bundles.put(bundle('b.org'), 'any');
  const stream = open(agent);
  await stream.next();
  await server.entry('/web', agent.id, { federates_with: ['b.org'] });
  assert.deepEqual(
    (await stream.next()).bundles.map((held: { trust_domain: string }) => held.trust_domain),
    ['b.org'],
  );
  await server.store.bundles.put(bundle('b.org', { sequence: 2n }), 'any');
  assert.equal((await stream.next()).bundles[0].sequence_number, '2');
  await server.admin.call('bundle', 'BatchDeleteFederatedBundle', { trust_domains: ['b.org'], mode: 'DISSOCIATE' });
  const gone = await stream.next();
  assert.deepEqual([gone.removed_trust_domains, gone.entries[0].federates_with], [['b.org'], []]);
  stream.talk.end();
});

test('the first message must be a start, and Applied messages are taken', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const wrong = agent.channel.bidi(api.sync, 'Watch');
  void wrong.send({ applied: { position: '1' } });
  assert.equal((await refusalOf(wrong.responses.next())).code, 'input/invalid');
  const stream = open(agent);
  const { position } = await stream.next();
  await stream.talk.send({ applied: { position } });
  await server.entry('/web', agent.id);
  assert.equal((await stream.next()).entries.length, 1);
  stream.talk.end();
  assert.deepEqual(await stream.talk.responses.next(), { done: true, value: undefined }, 'half-closing ends it well');
});

test('5,000 large entries, as many removals and a hundred bundles come in messages below 1 MB', () => {
  const codec = messageCodec('mutual.server.v1.WatchResponse');
  const long = 'x'.repeat(200);
  const entries: StoredEntry[] = Array.from({ length: 5000 }, (_, index) => ({
    ...draft(`/${long}/${index}`, {
      hint: '€'.repeat(300),
      selectors: [parseSelector(`unix:${'€'.repeat(200)}`)],
      dnsNames: [`${long}.example.org`],
    }),
    id: `${long}-${index}`,
    seq: index,
    revision: 1e15,
    createdAt: 1e10,
  }));
  const bundles = Array.from({ length: 100 }, (_, index) =>
    bundle(`td-${index}`, { x509Authorities: [{ certificate: Buffer.alloc(30_000), tainted: false }] }),
  );
  const group = {
    position: 7,
    snapshot: false,
    entries,
    removedEntryIds: entries.map(({ id }) => id),
    bundles,
    removedTrustDomains: [parseTrustDomain('gone.org')],
  };
  const messages = [...groupMessages(group, 'log', 0)].map((message) => codec.encode(message));
  for (const bytes of messages) assert.ok(bytes.length < 1_000_000, String(bytes.length));
  const decoded = messages.map((bytes) => codec.decode(bytes));
  assert.deepEqual(
    decoded.map(({ complete }) => complete),
    decoded.map((_, index) => index === decoded.length - 1),
  );
  assert.ok(decoded.every(({ position, log_id }) => position === '7' && log_id === 'log'));
  const all = (field: string) => decoded.flatMap((message) => message[field]);
  assert.deepEqual(
    all('entries').map(({ id }) => id),
    group.removedEntryIds,
  );
  assert.deepEqual(all('removed_entry_ids'), group.removedEntryIds);
  assert.equal(all('bundles').length, 100);
  assert.deepEqual(all('removed_trust_domains'), ['gone.org']);
});

test('an agent that does not read is cut off all the same when it is banned', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const entries = Array.from({ length: 3000 }, (_, index) => ({
    spiffe_id: wireId(`/${'x'.repeat(900)}/${index}`),
    parent_id: wireId(agent.id.slice(20)),
    selectors: wireSelectors('unix:uid:1'),
  }));
  for (let start = 0; start < entries.length; start += 1000)
    await server.admin.call('entry', 'BatchCreateEntry', {
      entries: entries.slice(start, start + 1000),
      output_mask: {},
    });
  const talk = agent.channel.bidi(api.sync, 'Watch');
  void talk.send({ start: { position: '0', log_id: '' } });
  await agent.call('sync', 'Position');
  await settle(20);
  await server.admin.call('agent', 'BanAgent', { id: wireId(agent.id.slice(20)) });
  await settle(20);
  const refused = () => server.lines.some((line) => line.includes('/Watch') && line.includes('is banned'));
  assert.ok(refused(), 'the server has ended the call though its messages were not read');
  // What it has still to send would hold its connection open.
  await talk.responses.return?.();
});
