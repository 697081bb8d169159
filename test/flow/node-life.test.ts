import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault, Status } from '../../src/errors.ts';
import { idToWire } from '../../src/wire/id.ts';
import { header, startPair } from '../support/pair.ts';

const agentApi = 'spire.api.server.agent.v1.Agent';
const minute = 60_000;

test('WA-25 a banned agent ends the streams of its workloads, forgets its SVID and stops', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  await stream.next();
  const end = pair.agent.closed.then(
    () => undefined,
    (error: unknown) => error,
  );
  await pair.admin.call(agentApi, 'BanAgent', { id: idToWire(pair.agent.id) });
  const reason = await end;
  assert.ok(reason instanceof Fault);
  assert.equal(reason.reason, 'AGENT_BANNED');
  await assert.rejects(stream.next());
  await assert.rejects(pair.pass(pair.startAgent()), (error: Fault) => error.status !== Status.OK);
});

test('an evicted join-token agent stops, and its entries authorise nobody any more', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const end = pair.agent.closed.then(
    () => undefined,
    (error: unknown) => error,
  );
  await pair.admin.call(agentApi, 'DeleteAgent', { id: idToWire(pair.agent.id) });
  const reason = await end;
  assert.ok(reason instanceof Fault);
  assert.equal(reason.reason, 'AGENT_NOT_ATTESTED');
  const { agents } = await pair.admin.call(agentApi, 'ListAgents', {});
  assert.deepEqual(agents, []);
});

test('an agent restarted while its server is down serves what it had', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const before = pair.watchX509();
  const [first] = await before.next();
  await before.close();
  await pair.stopAgent();
  await pair.stopServer();
  await pair.startAgent();
  const after = pair.watchX509();
  const [kept] = await after.next();
  assert.equal(kept?.leaf.serial, first?.leaf.serial);

  // And once the server is back, news arrive again without anybody helping.
  await pair.startServer();
  await pair.admin.createEntry('/later');
  let names: string[] = [];
  while (!names.includes('spiffe://example.org/later')) {
    names = (await pair.pass(after.next())).map(({ spiffeId }) => spiffeId);
  }
  await after.close();
});

test('the agent renews its own SVID at half life, and the server takes the new one', async (t) => {
  const pair = await startPair(t);
  const serial = async (): Promise<string> => {
    const agent = await pair.admin.call(agentApi, 'GetAgent', { id: idToWire(pair.agent.id) });
    return agent.x509svid_serial_number;
  };
  const first = await serial();
  const began = pair.clock.now();
  const renewed = async (): Promise<void> => {
    while ((await serial()) === first);
  };
  await pair.pass(renewed(), minute);
  const age = pair.clock.now() - began;
  assert.ok(age > 20 * minute && age < 45 * minute, `renewed after ${age / minute} minutes`);
});

test('JWT-6 JWT-7 JWT-10 WA-32 a JWT-SVID is issued for an audience and validates for that audience alone', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const metadata = header;
  const { svids } = await pair.workload.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, { metadata });
  assert.equal(svids[0].spiffe_id, 'spiffe://example.org/web');
  const request = { audience: 'db', svid: svids[0].svid };
  const valid = await pair.workload.unary('SpiffeWorkloadAPI', 'ValidateJWTSVID', request, { metadata });
  assert.equal(valid.spiffe_id, 'spiffe://example.org/web');
  await assert.rejects(
    pair.workload.unary('SpiffeWorkloadAPI', 'ValidateJWTSVID', { ...request, audience: 'other' }, { metadata }),
    (error: Fault) => error.status === Status.INVALID_ARGUMENT,
  );
});
