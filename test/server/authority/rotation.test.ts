/** Authorities and the server's SVID over days of a driven clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { startAuthorities } from '../../../server/authorities.ts';
import { readServerOptions, type ServerOptions } from '../../../server/config.ts';
import { issueJwtSvid } from '../../../server/issue/jwt.ts';
import { issueX509Svid } from '../../../server/issue/x509.ts';
import { openStore } from '../../../server/store/open.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { type Certificate, parseCertificate } from '../../../src/crypto/certificate.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { silentLog } from '../../../src/log.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { caActivateAt, caPrepareAt, serverRenewAt } from '../../../src/spiffe/lifetime.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { drivenClock } from '../../support/clock.ts';
import { id, td, testServer } from '../../support/server.ts';

const hour = 3_600_000;

async function authorities(flags: object = {}, clock = drivenClock()) {
  const store = await openStore({ url: 'sqlite::memory:' });
  const { options } = await readServerOptions({ flags: { trustDomain: td, dataDir: '/nowhere', ...flags } });
  const ports = { store, keys: memoryKeys(), clock, random: systemRandom, log: silentLog, serverName: 'one' };
  const start = (more: Partial<ServerOptions> = {}) => startAuthorities({ ...options, ...more }, ports);
  const bundle = async () => (await store.bundles.get(td)) as Bundle;
  return { clock, store, start, bundle, held: await start(), [Symbol.asyncDispose]: () => store.close() };
}

/** The instant at which something should happen, looked at a moment before and then. */
async function atTime(
  clock: ReturnType<typeof drivenClock>,
  time: number,
  look: () => Promise<void>,
  before: () => void,
  then: () => void,
) {
  clock.jump(time - clock.now() - 1);
  await look();
  before();
  clock.jump(1);
  await look();
  then();
}

for (const kind of ['x509', 'jwt'] as const) {
  test(`FED-1 TB-4 the ${kind} authority is prepared at half its life, published before it signs, and activated a sixth before the end`, async () => {
    await using one = await authorities();
    const { clock, held } = one;
    const authority = held[kind] as NonNullable<(typeof held)[typeof kind]>;
    const published = async () => {
      const { x509Authorities, jwtAuthorities, sequence } = await one.bundle();
      const ids =
        kind === 'x509'
          ? x509Authorities.map(({ certificate }) => parseCertificate(certificate).subjectKeyId?.toString('hex'))
          : jwtAuthorities.map(({ keyId }) => keyId);
      return { ids, sequence };
    };
    const first = authority.state().active!;
    const start = await published();
    assert.deepEqual(start.ids, [first.id]);

    const look = () => held.keepFresh();
    await atTime(
      clock,
      caPrepareAt(first),
      look,
      () => assert.equal(authority.state().prepared, undefined),
      () => {},
    );
    const second = authority.state().prepared!;
    const after = await published();
    assert.deepEqual(after.ids, [first.id, second.id]);
    assert.ok(after.sequence > start.sequence);
    assert.equal(authority.state().active?.id, first.id);

    await atTime(
      clock,
      caActivateAt(first),
      look,
      () => assert.equal(authority.state().active?.id, first.id),
      () => {
        assert.deepEqual([authority.state().active?.id, authority.state().old?.id], [second.id, first.id]);
      },
    );
    assert.deepEqual((await published()).ids, [first.id, second.id], 'what the old one signed is still good');

    // The bundle is looked through every six hours.
    clock.jump(first.notAfter + 23 * hour - clock.now());
    await look();
    assert.ok((await published()).ids.includes(first.id), 'a day of grace');
    clock.jump(7 * hour);
    await look();
    const end = await published();
    assert.ok(!end.ids.includes(first.id));
    assert.ok(end.sequence > after.sequence);
  });
}

test('whatever the hour, what is issued verifies with a bundle that was fetched a long refresh ago', async () => {
  await using one = await authorities();
  const { clock, held } = one;
  const key = generateKey('ec-p256').publicKey.export({ format: 'der', type: 'spki' });
  let stale = await one.bundle();
  for (let step = 0; step < 6 * 24; step++) {
    await held.keepFresh();
    const profile = { id: id('/web'), spki: key, ttl: hour, dnsNames: [] };
    const svid = await issueX509Svid(held.x509.signer.value, profile, clock.now(), systemRandom);
    assert.ok(svid.notAfter - clock.now() >= hour, 'never cut short');
    verifyX509Svid(svid.chain, stale, clock.now());
    verifyX509Svid(svid.chain, await one.bundle(), svid.notAfter - 1);
    const jwt = { id: id('/web'), audience: ['a'], ttl: hour, issuer: undefined, tokenId: undefined };
    const { token } = await issueJwtSvid(held.jwt!.signer.value, jwt, clock.now());
    await verifyJwtSvid(token, 'a', () => stale, clock.now());
    stale = await one.bundle();
    clock.jump(hour / 2);
  }
  const { x509Authorities, jwtAuthorities } = await one.bundle();
  assert.ok(x509Authorities.length <= 4 && jwtAuthorities.length <= 4, 'a bundle stays small');
});

test('the SVID of the server is renewed at half its life, and at once when its authority is tainted', async () => {
  await using one = await authorities();
  const { clock, held } = one;
  const first = held.serverSvid.value;
  const validity = parseCertificate(first.chain[0]!);
  await atTime(
    clock,
    serverRenewAt(validity),
    () => held.keepFresh(),
    () => assert.equal(held.serverSvid.value, first),
    () => assert.notEqual(held.serverSvid.value, first),
  );
  const second = held.serverSvid.value;
  assert.ok(!second.key.equals(first.key), 'with a new key');
  const { id: prepared } = await held.x509.prepare();
  await held.x509.activate(prepared);
  await held.keepFresh();
  assert.equal(held.serverSvid.value, second, 'an old authority is good until it is tainted');
  await held.x509.taint(held.x509.state().old!.id);
  await held.keepFresh();
  assert.notEqual(held.serverSvid.value, second);
  verifyX509Svid(held.serverSvid.value.chain, await one.bundle(), clock.now());
});

test('no JWT authority is made or published when JWT-SVIDs are off; one that is there stays until it expires', async () => {
  await using one = await authorities({ disableJwtSvids: true });
  assert.equal(one.held.jwt, undefined);
  assert.deepEqual((await one.bundle()).jwtAuthorities, []);
  await using two = await authorities();
  const { sequence } = await two.bundle();
  await two.start({ disableJwtSvids: true });
  assert.deepEqual([(await two.bundle()).jwtAuthorities.length, (await two.bundle()).sequence], [1, sequence]);
});

test('TB-6 another refresh hint in the configuration reaches the bundle at the next start', async () => {
  await using one = await authorities();
  assert.equal((await one.bundle()).refreshHint, 300);
  await one.start({ refreshHint: 60_000 });
  assert.equal((await one.bundle()).refreshHint, 60);
});

test('a part that fails does not keep the others from being looked after', async () => {
  await using one = await authorities();
  const { clock, held } = one;
  const before = held.jwt!.state().active;
  const jwtId = before!.id;
  // The journal of the X.509 authority is written by somebody else: each of its steps fails from now on.
  const stored = await one.store.journal.get('x509@one');
  await one.store.journal.put('x509@one', stored!.text, stored!.version);
  clock.jump(23 * hour);
  await assert.rejects(held.keepFresh(), /changed by another process/);
  assert.notEqual(held.jwt!.state().active?.id, jwtId);
});

async function shownTo(port: number): Promise<Certificate> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  try {
    await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    return parseCertificate(socket.getPeerX509Certificate()!.raw);
  } finally {
    socket.destroy();
  }
}

test('a rotated server SVID is seen by the next handshake, and connections that live go on', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const { port } = server.running.address;
  const first = await shownTo(port);
  const { prepared_authority } = await server.admin.call('localAuthority', 'PrepareX509Authority');
  const { authority_id } = prepared_authority;
  await server.admin.call('localAuthority', 'ActivateX509Authority', { authority_id });
  const { old } = await server.admin.call('localAuthority', 'GetX509AuthorityState');
  assert.equal((await shownTo(port)).serial, first.serial);
  await server.admin.call('localAuthority', 'TaintX509Authority', { authority_id: old.authority_id });
  const second = await shownTo(port);
  assert.notEqual(second.serial, first.serial);
  assert.equal(second.authorityKeyId?.toString('hex'), authority_id);
  await agent.call('entry', 'GetAuthorizedEntries');
  await server.as(agent.svid).call('entry', 'GetAuthorizedEntries');
  await server.admin.call('localAuthority', 'RevokeX509Authority', { authority_id: old.authority_id });
  await agent.call('entry', 'GetAuthorizedEntries');
  const { status } = await server.as(agent.svid).refusal('entry', 'GetAuthorizedEntries');
  assert.equal(status, 14, 'what the revoked authority signed makes no new connection');
});

test('a server that slept past every expiry serves again within seconds', async (t) => {
  const server = await testServer(t);
  server.clock.jump(40 * 24 * hour);
  // The last that the server looks after; its authorities come before.
  const rotated = server.logged(/server SVID rotated/);
  await server.clock.advance(5_000);
  await rotated;
  const agent = await server.attest();
  const entry = await server.entry('/web', agent.id);
  const { entries } = await agent.call('entry', 'GetAuthorizedEntries');
  assert.deepEqual(entries, [entry]);
  const { svid_chain } = await server.admin.call('debug', 'GetInfo');
  for (const { expires_at } of svid_chain) assert.ok(Number(expires_at) * 1000 > server.clock.now());
  const shown = await shownTo(server.running.address.port);
  assert.ok(shown.notAfter > server.clock.now());
});
