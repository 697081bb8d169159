/** SDS on the agent's real socket, beside the Workload API. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startAgent } from '../../../agent/agent.ts';
import type { Fault } from '../../../src/errors.ts';
import { silentLog } from '../../../src/log.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { drivenClock } from '../../support/clock.ts';
import { id } from '../support/agent-rig.ts';
import { fakeServer } from '../support/fake-server.ts';
import { middling } from '../support/random.ts';
import { read, sds } from '../support/sds-rig.ts';
import { serveFake } from '../support/serve-fake.ts';

async function started(t: TestContext, flags: Record<string, unknown> = {}) {
  const clock = drivenClock(Date.now());
  const server = fakeServer(clock);
  server.put({ id: 'a', selectors: [parseSelector(`unix:uid:${process.getuid?.()}`)] });
  const served = await serveFake(t, server, clock);
  const { options } = await served.options(flags);
  const agent = await startAgent(options, { clock, random: middling(), log: silentLog });
  const channel = connectUnix(agent.socket);
  t.after(async () => {
    channel.close();
    await agent.close();
  });
  return channel;
}

test('this very process fetches its own SVID and bundle without a header', async (t) => {
  const channel = await started(t);
  assert.deepEqual(read(await channel.unary(sds, 'FetchSecrets', {})).names, ['spiffe://example.org', id('/a')]);
  const stream = channel.bidi(sds, 'StreamSecrets');
  await stream.send({ resource_names: ['default', 'ROOTCA'] });
  const { value } = await stream.responses[Symbol.asyncIterator]().next();
  assert.deepEqual(read(value).names, ['default', 'ROOTCA']);
});

test('names and the header follow the options', async (t) => {
  const channel = await started(t, { sdsDefaultSvidName: 'me', sdsRequireHeader: true });
  await assert.rejects(channel.unary(sds, 'FetchSecrets', {}), (fault: Fault) => fault.status === 3);
  const metadata = { 'workload.spiffe.io': 'true' };
  const answer = await channel.unary(sds, 'FetchSecrets', { resource_names: ['me', 'ROOTCA'] }, { metadata });
  assert.deepEqual(read(answer).names, ['me', 'ROOTCA']);
});

test('switched off it is UNIMPLEMENTED', async (t) => {
  const channel = await started(t, { sdsEnabled: false });
  await assert.rejects(channel.unary(sds, 'FetchSecrets', {}), (fault: Fault) => fault.status === 12);
});
