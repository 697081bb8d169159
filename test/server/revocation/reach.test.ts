/** Who holds a position of the log, over all servers of one database; a driven clock, and streams that a test acknowledges. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { drivenClock } from '../../support/clock.ts';
import { type TestServer, testServer } from '../../support/server.ts';

/** An agent whose stream is open; it names positions back only when it is told to. */
async function watching(t: TestContext, server: TestServer) {
  const agent = await server.attest();
  const talk = agent.channel.bidi('mutual.server.v1.Sync', 'Watch');
  t.after(() => talk.end());
  await talk.send({ start: {} });
  const responses = talk.responses[Symbol.asyncIterator]();
  await responses.next();
  return { id: agent.id, applies: (position: string) => talk.send({ applied: { position } }) };
}

async function servers(t: TestContext, count: number) {
  const clock = drivenClock();
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const all: TestServer[] = [];
  for (let index = 0; index < count; index++) all.push(await testServer(t, { clock, store }));
  return { clock, all };
}

/** Follows a position at one server, moving time, until it has ended or `enough`; gives what was told. */
async function follow(
  server: TestServer,
  position: string,
  // biome-ignore lint/suspicious/noExplicitAny: a message
  enough: (now: any) => boolean = () => false,
) {
  // biome-ignore lint/suspicious/noExplicitAny: messages
  const told: any[] = [];
  let over = false;
  const stream = server.admin.channel.stream('mutual.server.v1.Revocation', 'Coverage', { position });
  const read = (async () => {
    for await (const now of stream) {
      told.push(now);
      if (enough(now)) break;
    }
  })().finally(() => {
    over = true;
  });
  for (let look = 0; look < 2000 && !over; look++) {
    await server.clock.advance(50);
    // A call there and back, so that what time began can go on.
    await server.admin.call('health', 'Check');
  }
  assert.ok(over, `it did not end: ${JSON.stringify(told.at(-1))}`);
  await read;
  return told;
}

const revoke = async (server: TestServer): Promise<string> =>
  (await server.admin.channel.unary('mutual.server.v1.Revocation', 'Revoke', { jti: 'stolen' })).position;

test('agents of every server are counted, and the answer ends when the last of them has it', async (t) => {
  const { all } = await servers(t, 3);
  const agents = await Promise.all(all.map((server) => watching(t, server)));
  const position = await revoke(all[0]!);
  for (const agent of agents.slice(0, 2)) await agent.applies(position);
  const some = await follow(all[0]!, position, ({ answered }) => answered === 3);
  const last = agents[2]!;
  assert.deepEqual(some.at(-1), {
    ...{ watching: 3, holding: 2, elsewhere: 0, polling: 0, servers: 3, answered: 3 },
    behind: [last.id],
  });
  await last.applies(position);
  const end = (await follow(all[0]!, position)).at(-1);
  assert.deepEqual([end.watching, end.holding, end.behind], [3, 3, []]);
  // Any server may be asked.
  assert.equal((await follow(all[2]!, position)).at(-1).holding, 3);
});

test('agents that poll and agents that are away are told apart', async (t) => {
  const { all } = await servers(t, 2);
  const [here, there] = all as [TestServer, TestServer];
  await here.attest();
  const polling = await there.attest();
  await polling.call('bundle', 'GetBundle');
  const end = (await follow(here, await revoke(here))).at(-1);
  assert.deepEqual([end.watching, end.polling, end.elsewhere, end.answered], [0, 1, 1, 2]);
});

test('a server that is away is told of after a while, and not waited for', async (t) => {
  const { all, clock } = await servers(t, 2);
  const [here, there] = all as [TestServer, TestServer];
  const agent = await watching(t, here);
  const lost = await there.attest();
  await there.stop();
  const position = await revoke(here);
  await agent.applies(position);
  const began = clock.now();
  const end = (await follow(here, position)).at(-1);
  assert.deepEqual([end.holding, end.watching, end.elsewhere], [1, 1, 1], lost.id);
  assert.deepEqual([end.answered, end.servers], [1, 2]);
  assert.ok(clock.now() - began < 20_000);
});

test('an answer to another question counts only when it is about as much', async (t) => {
  const { all } = await servers(t, 2);
  const [here, there] = all as [TestServer, TestServer];
  const agent = await watching(t, there);
  const first = await revoke(here);
  await agent.applies(first);
  assert.equal((await follow(here, first)).at(-1).holding, 1);
  const { position: second } = await here.admin.channel.unary('mutual.server.v1.Revocation', 'Revoke', {
    jti: 'other',
  });
  const [told] = (await follow(here, second, ({ answered }) => answered === 2)).slice(-1);
  assert.deepEqual([told.watching, told.holding], [1, 0]);
});
