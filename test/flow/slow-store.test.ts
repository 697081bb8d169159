import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openStore } from '../../server/store/open.ts';
import type { Store } from '../../server/store/store.ts';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import { testServer } from '../support/server.ts';

/** A store of which every question waits while it is held, as one on a disk that hangs; the disk cannot be had here. */
function held(store: Store) {
  let gate: PromiseWithResolvers<void> | undefined;
  let waiting = 0;
  const slow = <T extends object>(port: T): T =>
    Object.fromEntries(
      Object.entries(port).map(([name, ask]) => [
        name,
        // Telling who listens is no question.
        typeof ask !== 'function' || name.startsWith('on')
          ? ask
          : async (...given: unknown[]) => {
              waiting += 1;
              await gate?.promise;
              waiting -= 1;
              return ask(...given);
            },
      ]),
    ) as T;
  const { entries, nodes, bundles, tokens, federation, journal, revocations } = store;
  return {
    store: {
      ...store,
      ...{ entries: slow(entries), nodes: slow(nodes), bundles: slow(bundles), tokens: slow(tokens) },
      ...{ federation: slow(federation), journal: slow(journal), revocations: slow(revocations) },
      ...slow({ ping: store.ping }),
    } satisfies Store,
    hold: () => {
      gate = Promise.withResolvers();
    },
    release: () => gate?.resolve(),
    waiting: () => waiting,
  };
}

test('a database that hangs: agents are issued SVIDs and stay on their streams, ready says what is wrong, writes are done when it goes on', async (t) => {
  const sqlite = await openStore({ url: 'sqlite::memory:' });
  t.after(() => sqlite.close());
  const slow = held(sqlite);
  const server = await testServer(t, { store: slow.store, flags: { 'health-listen': '127.0.0.1:0' } });
  const agent = await server.attest();
  const { id } = await server.entry('/before', agent.id);
  const talk = agent.channel.bidi('mutual.server.v1.Sync', 'Watch');
  void talk.send({ start: { position: '0', log_id: '' } });
  const updates = talk.responses[Symbol.asyncIterator]();
  await updates.next();
  const checks = async () => {
    const asked = fetch(`http://127.0.0.1:${server.running.health!.port}/ready`);
    return (await (await asked).json()) as { status: string; checks: Record<string, string> };
  };
  const csr = () => makeCsr(generateKey('ec-p256').privateKey, {});

  slow.hold();
  const asked = checks();
  const writes = ['/one', '/two', '/three'].map((path) => server.entry(path, agent.id));
  while (slow.waiting() < 4) await new Promise((resolve) => setImmediate(resolve));
  await server.clock.advance(3_000);
  assert.deepEqual((await asked).checks.store, 'no answer in 3 s');
  for (let i = 0; i < 5; i += 1) {
    const { results } = await agent.call('svid', 'BatchNewX509SVID', { params: [{ entry_id: id, csr: csr() }] });
    assert.equal(results[0].status.code, 0);
  }
  const { entries } = await agent.call('entry', 'GetAuthorizedEntries');
  assert.equal(entries.length, 1);
  assert.equal((await server.nobody.call('bundle', 'GetBundle')).trust_domain, 'example.org');
  // Two minutes of it, asked each second: what waits is what was asked, not a question for each second.
  for (let second = 0; second < 120; second += 1) await server.clock.advance(1_000);
  assert.ok(slow.waiting() < 20, `${slow.waiting()} questions wait`);
  slow.release();

  const made = await Promise.all(writes);
  const told = new Set<string>();
  while (!made.every((entry) => told.has(entry.id))) {
    const { value, done } = await updates.next();
    assert.ok(!done, 'the stream is the one it was');
    for (const entry of value.entries) told.add(entry.id);
  }
  assert.equal((await checks()).status, 'ok');
  talk.end();
});
