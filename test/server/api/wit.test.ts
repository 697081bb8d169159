/** WIT-SVIDs over the server's API: off until enabled, for agents by entry, for operators by ID. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { publicJwk } from '../../../src/crypto/jwk.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Status } from '../../../src/errors.ts';
import { heldKey } from '../../../src/keys/key-store.ts';
import { parseBundle, printBundle } from '../../../src/spiffe/bundle-jwks.ts';
import { id, td, testServer, wireId } from '../../support/server.ts';

const spki = () => heldKey('workload', generateKey('ec-p256').privateKey).publicKey;
const enabled = { flags: { witSvidsEnabled: true } };
const one = (entry_id: string, more = {}) => ({
  entry_id,
  public_key: spki(),
  signing_algorithm: 'ES256',
  ...more,
});

test('WA-2 ST-1 without the option nothing of WIT-SVIDs is there: no authority, no key in the bundle, UNIMPLEMENTED', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const entry = await server.entry('/web', agent.id);
  assert.deepEqual((await server.bundle()).witAuthorities, []);
  assert.deepEqual(await server.store.journal.list('wit@'), []);
  for (const [peer, service, method, request] of [
    [agent, 'svid', 'BatchNewWITSVID', { params: [one(entry.id)] }],
    [agent, 'svid', 'BatchNewWITSVID', {}],
    [server.admin, 'svid', 'MintWITSVID', { ...one(''), id: wireId('/web') }],
    [server.admin, 'localAuthority', 'GetWITAuthorityState', {}],
    ...(['Prepare', 'Activate', 'Taint', 'Revoke'] as const).map(
      (verb) => [server.admin, 'localAuthority', `${verb}WITAuthority`, { authority_id: 'x' }] as const,
    ),
  ] as const)
    assert.equal((await peer.refusal(service, method, request)).status, Status.UNIMPLEMENTED, method);
});

test('WIT-28 the bundle has WIT keys under a use of their own, with names that no JWT key has', async (t) => {
  const server = await testServer(t, enabled);
  await server.admin.call('localAuthority', 'PrepareWITAuthority');
  await server.admin.call('localAuthority', 'PrepareJWTAuthority');
  const bundle = await server.bundle();
  assert.equal(bundle.witAuthorities.length, 2);
  const { keys } = JSON.parse(printBundle(bundle));
  const named = keys.filter(({ use }: { use: string }) => use !== 'x509-svid');
  assert.deepEqual(named.map(({ use }: { use: string }) => use).sort(), [
    'jwt-svid',
    'jwt-svid',
    'wit-svid',
    'wit-svid',
  ]);
  assert.equal(new Set(named.map(({ kid }: { kid: string }) => kid)).size, 4);
  assert.deepEqual(
    parseBundle(printBundle(bundle), td).witAuthorities.map(({ keyId }) => keyId),
    bundle.witAuthorities.map(({ keyId }) => keyId),
  );
  const { keyId, publicKey } = bundle.witAuthorities[0]!;
  const clash = await server.admin.refusal('bundle', 'AppendBundle', {
    jwt_authorities: [{ key_id: keyId, public_key: publicKey }],
  });
  assert.deepEqual([clash.status, /ID of a WIT authority/.test(clash.message)], [Status.INVALID_ARGUMENT, true]);
});

test('WIT-11 an agent gets one for each entry it holds, bound to the key it sends, each with a name of its own', async (t) => {
  const server = await testServer(t, enabled);
  const agent = await server.attest();
  const [web, db] = [
    await server.entry('/web', agent.id, { hint: 'front' }),
    await server.entry('/db', agent.id, { x509_svid_ttl: 60 }),
  ];
  const theirs = await server.entry('/theirs', (await server.attest()).id);
  const [first, second] = [one(web.id), one(db.id)];
  const { results } = await agent.call('svid', 'BatchNewWITSVID', {
    params: [
      first,
      second,
      one(web.id),
      one(theirs.id),
      one('none'),
      one(''),
      one(web.id, { public_key: Buffer.alloc(0) }),
      one(web.id, { signing_algorithm: 'ES384' }),
    ],
  });
  const codes = results.map(({ status }: { status: { code: number } }) => status.code);
  assert.deepEqual(codes, [
    0,
    0,
    0,
    Status.NOT_FOUND,
    Status.NOT_FOUND,
    Status.INVALID_ARGUMENT,
    Status.INVALID_ARGUMENT,
    Status.INVALID_ARGUMENT,
  ]);
  const now = Math.floor(server.clock.now() / 1000);
  const [own, short, again] = results.slice(0, 3).map(({ svid }: { svid: { token: string } }) => ({
    ...svid,
    ...decodeJwt(svid.token),
  }));
  assert.deepEqual(
    [own.claims.sub, own.hint, own.issued_at, own.expires_at, own.claims.cnf],
    [id('/web'), 'front', String(now), String(now + 3600), { jwk: { ...publicJwk(first.public_key), alg: 'ES256' } }],
  );
  assert.deepEqual([short.claims.exp, short.claims.sub], [now + 60, id('/db')]);
  assert.equal(new Set([own, short, again].map(({ claims }) => claims.jti)).size, 3);
  assert.match(own.claims.jti, /^[A-Za-z0-9_-]{22}$/);
  assert.equal(own.header.kid, (await server.bundle()).witAuthorities[0]?.keyId);
  assert.equal((await agent.refusal('svid', 'BatchNewWITSVID', {})).status, Status.INVALID_ARGUMENT);
});

test('operators have one minted for any ID of the trust domain but reserved ones', async (t) => {
  const server = await testServer(t, { flags: { witSvidsEnabled: true, witSvidsTtl: '10m', witSvidsIssuer: 'us' } });
  const mint = { id: wireId('/web'), public_key: spki(), signing_algorithm: 'ES256' };
  const now = Math.floor(server.clock.now() / 1000);
  const { svid } = await server.admin.call('svid', 'MintWITSVID', mint);
  const { claims } = decodeJwt(svid.token);
  assert.deepEqual([claims.sub, claims.exp, claims.iss, svid.id], [id('/web'), now + 600, 'us', wireId('/web')]);
  const short = await server.admin.call('svid', 'MintWITSVID', { ...mint, ttl: 20 });
  assert.equal(short.svid.expires_at, String(now + 20));
  for (const wrong of [
    { id: null },
    { id: wireId('/spire/agent/x') },
    { id: { trust_domain: 'b.org', path: '/a' } },
    { ttl: -1 },
    { signing_algorithm: 'EdDSA' },
    { public_key: Buffer.from('x') },
  ])
    assert.equal(
      (await server.admin.refusal('svid', 'MintWITSVID', { ...mint, ...wrong })).status,
      Status.INVALID_ARGUMENT,
      JSON.stringify(wrong),
    );
});

test('a batch counts as many calls as it has parts', async (t) => {
  const server = await testServer(t, { flags: { ...enabled.flags, 'rate-limits-wit': 3 } });
  const agent = await server.attest();
  const params = Array.from({ length: 4 }, () => one('none'));
  assert.equal((await agent.refusal('svid', 'BatchNewWITSVID', { params })).status, Status.RESOURCE_EXHAUSTED);
});
