/** Rotations below an upstream authority: what goes is the root, where the next authorities lead to another one. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { authorityId, parseCertificate } from '../../../src/crypto/certificate.ts';
import { drivenClock } from '../../support/clock.ts';
import { type TestServer, testServer } from '../../support/server.ts';
import { upstreamFiles } from '../../support/upstream-files.ts';
import { follower, rotation } from './support/rotation.ts';

async function below(t: TestContext) {
  const clock = drivenClock();
  const files = await upstreamFiles(clock.now());
  t.after(files.close);
  const server = await testServer(t, { clock, flags: files.flags });
  return { clock, files, server, ...rotation(server) };
}

/** Root ids in the bundle, tainted ones with a mark. */
async function roots(server: TestServer): Promise<string[]> {
  const { x509Authorities } = await server.bundle();
  return x509Authorities.map(
    ({ certificate, tainted }) => `${authorityId(parseCertificate(certificate))}${tainted ? ' tainted' : ''}`,
  );
}

const slotsOf = (server: TestServer) => server.admin.call('localAuthority', 'GetX509AuthorityState');

test('planned, to another root: agents hold the new one before it signs, leave the old one before it is revoked', async (t) => {
  const { server, files, start, go } = await below(t);
  const one = await follower(t, server);
  await one.says();
  const old = files.root();
  const next = await files.rotate();
  const { id, authorities } = await start('PLANNED', 'X509');
  assert.deepEqual(
    [authorities[0].old_root_id, authorities[0].new_root_id, authorities[0].root_stays],
    [old, next, false],
  );
  let state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['PREPARE', 0]);
  await one.says();
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0]);
  assert.deepEqual(await roots(server), [`${old} tainted`, next]);
  await one.says([old]);
  assert.equal((await go(id)).coverage.covered, 0, 'it still serves what hangs on the old root');
  await one.says();
  state = await go(id);
  assert.deepEqual([state.step, state.authorities[0].revoked], ['DONE', true]);
  assert.deepEqual(await roots(server), [next]);
  assert.equal((await slotsOf(server)).old, null);
});

test('planned, the root stays: the key is another one, nothing is tainted, what was signed is good', async (t) => {
  const { server, files, start, go } = await below(t);
  const one = await follower(t, server);
  await one.says();
  const before = (await slotsOf(server)).active;
  const { id } = await start('PLANNED', 'X509');
  await one.says();
  const state = await go(id);
  assert.equal(state.step, 'DONE');
  const [authority] = state.authorities;
  assert.deepEqual([authority.root_stays, authority.activated, authority.old_root_id], [true, true, files.root()]);
  assert.deepEqual(await roots(server), [files.root()]);
  const { active, old } = await slotsOf(server);
  assert.equal(active.authority_id, authority.new_authority_id);
  assert.equal(old.authority_id, before.authority_id, 'it is the old one as after any rotation');
});

test('emergency, the root stays: refused with the reason before anything signs; goes on when the upstream has another root', async (t) => {
  const { server, files, start, go, get } = await below(t);
  const old = files.root();
  const before = (await slotsOf(server)).active.authority_id;
  const { id } = await start('EMERGENCY', 'X509');
  const state = await go(id);
  assert.equal(state.step, 'PREPARE');
  assert.match(state.waiting_for, new RegExp(`1 of 1 authorities would leave root ${old} in use.*another root`));
  assert.equal((await slotsOf(server)).active.authority_id, before);
  assert.equal((await go(id)).step, 'PREPARE', 'asking again alone changes nothing');
  const next = await files.rotate();
  const again = await start('EMERGENCY', 'X509');
  assert.deepEqual([again.id, again.authorities[0].new_root_id], [id, next]);
  assert.equal((await go(id)).step, 'DONE');
  assert.deepEqual(await roots(server), [next]);
  assert.equal((await get()).forced.length, 0);
});

test('emergency by force, the root stays: the key is replaced, and it is written down', async (t) => {
  const { server, files, start, go, advance } = await below(t);
  const { id } = await start('EMERGENCY', 'X509');
  await go(id);
  assert.equal((await advance(id, true)).step, 'ACTIVATE');
  const end = await go(id);
  assert.deepEqual([end.step, end.forced, end.authorities[0].root_stays], ['DONE', ['ACTIVATE'], true]);
  assert.deepEqual(await roots(server), [files.root()]);
});

test('two servers, one of which leads to the old root again: the root is neither tainted nor revoked, in an emergency it is waited for', async (t) => {
  const clock = drivenClock();
  const [here, there] = [await upstreamFiles(clock.now()), await upstreamFiles(clock.now())];
  t.after(here.close);
  t.after(there.close);
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const old = here.root();
  await there.copyFrom(here);
  const one = await testServer(t, { clock, store, flags: here.flags });
  const two = await testServer(t, { clock, store, flags: there.flags });
  const next = await here.rotate();
  const { start, get } = rotation(one);
  const { id } = await start('EMERGENCY', 'X509');
  /** Both look after the rotation until it is as wanted. */
  // biome-ignore lint/suspicious/noExplicitAny: a message
  async function until(wanted: (state: any) => boolean): Promise<any> {
    for (let look = 0; look < 200; look++) {
      const state = await rotation(look % 2 ? one : two).advance(id);
      if (wanted(state)) return state;
    }
    assert.fail(JSON.stringify(await get()));
  }
  const stuck = await until(({ waiting_for }) => /would leave root/.test(waiting_for));
  assert.match(stuck.waiting_for, new RegExp(`2 of 2 authorities would leave root ${old} in use`));
  assert.deepEqual((await roots(one)).sort(), [old, next].sort());

  await there.copyFrom(here);
  await start('EMERGENCY', 'X509');
  const end = await until(({ step }) => step === 'DONE');
  assert.ok(
    end.authorities.every((part: { revoked: boolean; root_stays: boolean }) => part.revoked && !part.root_stays),
  );
  for (const server of [one, two]) {
    assert.deepEqual(await roots(server), [next]);
    const { active, old: last } = await slotsOf(server);
    assert.deepEqual([active.upstream_authority_subject_key_id, last], [next, null]);
  }
});

test('an agent that only polls is counted by the root of the SVID that it presents', async (t) => {
  const { server, files, start, go } = await below(t);
  const agent = await server.attest();
  await files.rotate();
  const { id } = await start('PLANNED', 'X509');
  await agent.call('bundle', 'GetBundle');
  let state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0]);
  await agent.call('bundle', 'GetBundle');
  state = await go(id);
  assert.deepEqual([state.step, state.coverage.covered], ['TAINT', 0], 'its own SVID hangs on the tainted root');
});
