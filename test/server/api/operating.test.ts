/** The services of the admin socket that are about the program: log level, what it holds, whether it is well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '../../../src/errors.ts';
import { bundle } from '../../suites/store.ts';
import { api, testServer } from '../../support/server.ts';

test('Logger: the level is told, set and reset; none and unknown ones are refused', async (t) => {
  const server = await testServer(t);
  assert.deepEqual(await server.admin.call('logger', 'GetLogger'), { current_level: 'TRACE', launch_level: 'TRACE' });
  assert.deepEqual(await server.admin.call('logger', 'SetLogLevel', { new_level: 'ERROR' }), {
    current_level: 'ERROR',
    launch_level: 'TRACE',
  });
  const lines = server.lines.length;
  await server.admin.call('bundle', 'GetBundle');
  await server.attest();
  assert.equal(server.lines.length, lines, 'what is below the level is not logged');
  for (const new_level of ['UNSPECIFIED', 99])
    assert.equal((await server.admin.refusal('logger', 'SetLogLevel', { new_level })).status, Status.INVALID_ARGUMENT);
  assert.deepEqual(await server.admin.call('logger', 'ResetLogLevel'), {
    current_level: 'TRACE',
    launch_level: 'TRACE',
  });
  for (const new_level of ['PANIC', 'FATAL', 'WARN', 'INFO', 'DEBUG', 'TRACE'])
    assert.equal((await server.admin.call('logger', 'SetLogLevel', { new_level })).current_level, new_level);
});

test('Debug: chain, uptime and counts', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  await server.entry('/web', agent.id);
  await server.store.bundles.put(bundle('b.org'), 'any');
  await server.admin.call('agent', 'GetAgent', { id: { trust_domain: 'example.org', path: agent.id.slice(20) } });
  await server.clock.advance(90_000);
  const info = await server.admin.call('debug', 'GetInfo');
  assert.deepEqual([info.uptime, info.agents_count, info.entries_count, info.federated_bundles_count], [90, 1, 1, 1]);
  assert.deepEqual(
    info.svid_chain.map((one: { id: { path: string }; subject: string }) => [
      one.id.path,
      one.subject.replace(/\d{10,}/, 'N'),
    ]),
    [
      ['/spire/server', 'O=SPIRE,C=US'],
      ['', 'SERIALNUMBER=N,O=SPIFFE,C=US'],
    ],
  );
});

test('Health: SERVING for the server as a whole, and for no other name', async (t) => {
  const server = await testServer(t);
  assert.deepEqual(await server.admin.call('health', 'Check'), { status: 'SERVING' });
  assert.equal((await server.admin.refusal('health', 'Check', { service: 'x' })).status, Status.NOT_FOUND);
  assert.equal((await server.admin.refusal('health', 'List')).status, Status.UNIMPLEMENTED);
  await assert.rejects(
    server.admin.channel.stream(api.health, 'Watch', {}).next(),
    (error: { status: number }) => error.status === Status.UNIMPLEMENTED,
  );
});
