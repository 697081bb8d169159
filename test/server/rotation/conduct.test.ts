/** A rotation of one server with agents that say what they hold, step by step; over the API, with a driven clock. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Status } from '../../../src/errors.ts';
import { drivenClock } from '../../support/clock.ts';
import { svidOf, type TestServer, testServer, wireId } from '../../support/server.ts';
import { follower, rotation, service } from './support/rotation.ts';

test('planned: nothing signs before every agent holds it, nothing is revoked before every agent has left the old one', async (t) => {
  const server = await testServer(t);
  const { start, go, get } = rotation(server);
  const one = await follower(t, server);
  const other = await follower(t, server);
  await one.says();

  const { id, authorities, mode } = await start('PLANNED', 'X509');
  assert.equal(mode, 'PLANNED');
  const [{ old_authority_id: old, new_authority_id: next, prepared }] = authorities;
  assert.ok(prepared && next !== '' && next !== old);
  let state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered, state.coverage.agents], ['PREPARE', 0, 2]);
  await one.says();
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['PREPARE', 1]);
  assert.match(state.waiting_for, /1 of 2 agents hold the new authorities/);
  assert.deepEqual(
    state.coverage.uncovered.map((agent: { id: string }) => agent.id),
    [other.id],
  );
  await other.says();

  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0]);
  const held = await server.admin.call('localAuthority', 'GetX509AuthorityState');
  assert.deepEqual([held.active.authority_id, held.old.authority_id], [next, old]);
  await one.says();
  await other.says([old]);
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 1], 'one still serves what the old one signed');
  await other.says();
  state = await go(id);
  assert.equal(state.step, 'DONE');
  assert.equal(state.authorities[0].revoked, true);
  assert.equal((await server.bundle()).x509Authorities.length, 1);
  assert.equal((await get()).id, id);
});

test('force: what is missing is passed over, and it is written down that it was', async (t) => {
  const server = await testServer(t);
  const { start, advance, go } = rotation(server);
  await server.attest();
  const { id } = await start('PLANNED', 'X509');
  assert.equal((await go(id)).coverage.uncovered[0].why, 'unknown');
  assert.equal((await advance(id, true)).step, 'ACTIVATE');
  assert.equal((await go(id)).step, 'TAINT');
  const end = await advance(id, true);
  assert.deepEqual([end.step, end.forced], ['REVOKE', ['ACTIVATE', 'REVOKE']]);
  assert.equal((await go(id)).step, 'DONE');
});

test('a restart in the middle loses nothing; the same command goes on, an emergency speeds it up, other kinds are refused', async (t) => {
  const server = await testServer(t);
  const { id, authorities } = await rotation(server).start('PLANNED', 'X509');
  await server.restart();
  const { start, go } = rotation(server);
  const again = await start('PLANNED', 'X509');
  assert.deepEqual([again.id, again.authorities], [id, authorities]);
  await assert.rejects(start('PLANNED', 'JWT'), /a rotation of x509 is under way/);
  assert.equal((await start('EMERGENCY')).mode, 'EMERGENCY');
  assert.equal((await start('PLANNED')).mode, 'EMERGENCY', 'it does not become less urgent');
  assert.equal((await go(id)).step, 'DONE');
  assert.notEqual((await start('EMERGENCY', 'JWT')).id, id, 'a finished one is not gone on with');
});

test('an emergency takes no authority that was prepared before it; a planned rotation does', async (t) => {
  const server = await testServer(t);
  const before = (await server.admin.call('localAuthority', 'PrepareX509Authority')).prepared_authority.authority_id;
  const { start } = rotation(server);
  assert.equal((await start('PLANNED', 'X509')).authorities[0].new_authority_id, before);
  const other = await testServer(t);
  const prepared = (await other.admin.call('localAuthority', 'PrepareX509Authority')).prepared_authority.authority_id;
  assert.notEqual((await rotation(other).start('EMERGENCY', 'X509')).authorities[0].new_authority_id, prepared);
});

test('a planned rotation of JWT keys waits for the tokens that are still in use', async (t) => {
  const server = await testServer(t);
  const { start, go } = rotation(server);
  const { id } = await start('PLANNED', 'JWT');
  const state = await go(id);
  assert.equal(state.step, 'TAINT');
  assert.match(state.waiting_for, /JWT-SVIDs that the old key signed are in use for 300 s/);
  server.clock.jump(300_000);
  assert.equal((await go(id)).step, 'DONE');
});

test('a JWT key that two servers share is replaced once, from either, and both sign with the next before the old one is revoked', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-shared-'));
  t.after(() => rm(dir, { recursive: true }));
  const keysSealPassphraseFile = join(dir, 'passphrase');
  await writeFile(keysSealPassphraseFile, 'one for both', { mode: 0o600 });
  const flags = { keysShareJwt: true, keysSealBy: 'passphrase', keysSealPassphraseFile };
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const clock = drivenClock();
  const one = await testServer(t, { clock, store, flags });
  const two = await testServer(t, { clock, store, flags });
  const kidOf = async (server: TestServer): Promise<string> => {
    const request = { id: wireId('/web'), audience: ['a'] };
    return String(decodeJwt((await server.admin.call('svid', 'MintJWTSVID', request)).svid.token).header.kid);
  };
  const old = await kidOf(one);
  assert.equal(await kidOf(two), old);

  const { id, authorities } = await rotation(one).start('EMERGENCY', 'JWT');
  assert.deepEqual(
    authorities.map((part: { server: string; old_authority_id: string }) => [part.server, part.old_authority_id]),
    [['shared', old]],
  );
  const state = await rotation(two).go(id);
  assert.equal(state.step, 'TAINT');
  assert.match(state.waiting_for, /all servers have 10 s to sign with the new shared key/);
  assert.equal((await two.bundle()).jwtAuthorities.length, 2);
  for (let look = 0; look < 1_000 && (await kidOf(one)) === old; look++) await clock.advance(100);
  const next = await kidOf(one);
  assert.notEqual(next, old);
  assert.equal(await kidOf(two), next);
  await clock.advance(10_000);
  assert.equal((await rotation(one).go(id)).step, 'DONE');
  assert.deepEqual(
    (await two.bundle()).jwtAuthorities.map(({ keyId }) => keyId),
    [next],
  );
});

test('an agent that only polls is counted by what it has fetched, and by who signed the SVID it presents', async (t) => {
  const server = await testServer(t);
  const { start, go } = rotation(server);
  const agent = await server.attest();
  const { id } = await start('PLANNED', 'X509');
  assert.equal((await go(id)).coverage.covered, 0);
  await agent.call('bundle', 'GetBundle');
  let state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0]);
  await agent.call('bundle', 'GetBundle');
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0], 'its own SVID is of the tainted authority');
  const { privateKey } = generateKey('ec-p256');
  const { svid } = await agent.call('agent', 'RenewAgent', { params: { csr: makeCsr(privateKey, { uri: agent.id }) } });
  const renewed = server.as(svidOf(svid, privateKey));
  // By this call the server learns that the new SVID is used, and with the entry it has read so.
  await renewed.call('entry', 'GetAuthorizedEntries');
  await server.entry('/web', agent.id);
  await renewed.call('bundle', 'GetBundle');
  assert.equal((await go(id)).coverage.covered, 0, 'what its workloads have follows later');
  server.clock.jump(10_000);
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.polling], ['DONE', 1]);
});

test('a banned or expired agent is not waited for', async (t) => {
  const server = await testServer(t);
  const { start, go } = rotation(server);
  const banned = await server.attest();
  await server.admin.call('agent', 'BanAgent', {
    id: { trust_domain: 'example.org', path: banned.id.slice('spiffe://example.org'.length) },
  });
  const { id } = await start('PLANNED', 'X509');
  assert.equal((await go(id)).step, 'DONE');
});

test('rotation is for operators: agents and nobody are refused', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  for (const peer of [agent, server.nobody])
    for (const method of ['StartRotation', 'AdvanceRotation', 'GetRotation'])
      await assert.rejects(peer.channel.unary(service, method, {}), { status: Status.PERMISSION_DENIED });
  await assert.rejects(rotation(server).get(), { status: Status.NOT_FOUND });
  await assert.rejects(rotation(server).advance(''), /the ID of the rotation is missing/);
});
