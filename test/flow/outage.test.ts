import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { header, startPair } from '../support/pair.ts';

const minute = 60_000;

test('with every server down a restarted agent serves X.509 at once, and says how long it can last', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const [first] = await stream.next();
  await stream.close();
  await pair.stopAgent();
  await pair.stopServer();
  const began = performance.now();
  await pair.startAgent();
  const again = pair.watchX509();
  const [kept] = await again.next();
  t.diagnostic(`served ${Math.round(performance.now() - began)} ms after the start, without a server`);
  assert.equal(kept?.leaf.serial, first?.leaf.serial);
  await again.close();

  const admin = connectUnix(pair.agent.adminSocket);
  const refused = pair.workload.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, { metadata: header });
  const outcome = refused.then(
    () => 'a token',
    () => 'refused',
  );
  assert.equal(await pair.pass(outcome, 100), 'refused', 'a JWT nobody had asked for cannot be had');
  const status = await admin.unary('mutual.agent.v1.Status', 'GetStatus', {});
  admin.close();
  assert.match(status.outage, /cannot reach/);
  assert.equal(Number(status.serves_all_until), Math.floor(kept!.leaf.notAfter / 1000));
  assert.equal(status.refusals[0].method, '/SpiffeWorkloadAPI/FetchJWTSVID');
  assert.equal(status.refusals[0].uid, process.getuid?.());
});

test('JWT-SVIDs of audiences seen are renewed ahead, so that an outage finds them young', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  await stream.next();
  await stream.close();
  const fetch = async (): Promise<string> =>
    (await pair.workload.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, { metadata: header }))
      .svids[0].svid;
  const first = await fetch();
  // Five minutes is how long they live; nobody asks for half an hour.
  let passed = 0;
  await pair.pass(
    (async () => {
      const until = pair.clock.now() + 30 * minute;
      while (pair.clock.now() < until) await pair.workload.unary('grpc.health.v1.Health', 'Check', {});
      passed = 30;
    })(),
    5_000,
  );
  assert.equal(passed, 30);
  await pair.stopServer();
  const second = await fetch();
  assert.notEqual(second, first);
  const left = Number(decodeJwt(second).claims.exp) * 1000 - pair.clock.now();
  assert.ok(left > 2 * minute, `${left / 1000} s left when the outage began`);
});
