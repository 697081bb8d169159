/** The WIT-SVID profile of the Workload API, over an agent with a fake server. The real one is met in test/flow. */
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import { revocations } from '../../../agent/revocations.ts';
import { publicJwk } from '../../../src/crypto/jwk.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Fault, Status } from '../../../src/errors.ts';
import type { Channel } from '../../../src/rpc/connect.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { testAuthority } from '../../support/ca.ts';
import { agentRig, api, follow, header, id, type RigOptions } from '../support/agent-rig.ts';

const hour = 3_600_000;
const unreachable = new Fault('peer/unavailable', 'cannot reach the server');
const uid = (number: number) => [parseSelector(`unix:uid:${number}`)];
const methods = ['FetchWITSVID', 'FetchWITBundles'] as const;

interface WireWit {
  spiffe_id: string;
  wit_svid: string;
  wit_svid_key: string;
  hint: string;
}

async function offering(options: RigOptions = {}) {
  const rig = await agentRig({ wits: true, ...options, before: (server) => server.offerWits() });
  return { ...rig, stream: (...selectors: string[]) => follow(rig.workload(...selectors), 'FetchWITSVID', rig.clock) };
}
async function first(channel: Channel, method: string, request: object = {}, metadata = header) {
  const stream = channel.stream(api, method, request, { metadata });
  const { value } = await stream.next();
  await stream.return?.();
  return value;
}
const refusedAs =
  (status: number, says = /./) =>
  (fault: Fault) => {
    assert.deepEqual([fault.status, says.test(fault.message)], [status, true], fault.message);
    return true;
  };
const ids = ({ svids }: { svids: WireWit[] }) => svids.map(({ spiffe_id }) => spiffe_id);

for (const method of methods) {
  test(`WE-6 ${method} without the header is refused as INVALID_ARGUMENT`, async () => {
    const rig = await offering();
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(
      first(rig.workload(), method, {}, {} as typeof header),
      refusedAs(Status.INVALID_ARGUMENT, /security header missing/),
    );
    rig.stop();
  });

  test(`WA-3 ${method} answers UNIMPLEMENTED below a server that has no WIT-SVIDs, and asks it for nothing`, async () => {
    const rig = await agentRig({ wits: true });
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(first(rig.workload(), method), refusedAs(Status.UNIMPLEMENTED, /issues no WIT-SVIDs/));
    assert.equal(rig.server.count('BatchNewWITSVID'), 0);
    rig.stop();
  });

  test(`WA-24 ${method} of a process without an identity is PERMISSION_DENIED, and of one that loses its last`, async () => {
    const rig = await offering();
    rig.server.put({ id: 'a' });
    await rig.start();
    const nobody = first(rig.workload('unix:uid:7'), method);
    nobody.catch(() => {});
    await rig.clock.advance(2_000);
    await assert.rejects(nobody, refusedAs(Status.PERMISSION_DENIED, /^no identity issued/));
    const stream = follow(rig.workload(), method, rig.clock);
    await stream.next();
    rig.server.remove('a');
    await rig.clock.advance(0);
    await assert.rejects(stream.next(), refusedAs(Status.PERMISSION_DENIED, /^no identity issued/));
    rig.stop();
  });
}

for (const keyType of ['ec-p256', 'rsa-2048'] as const) {
  test(`WA-15 WA-29 WA-38 each identity comes with a token and its private key as a JWK, ${keyType}`, async () => {
    const rig = await offering({ witKeyType: keyType });
    rig.server.put({ id: 'a', hint: 'main' });
    rig.server.put({ id: 'b', hint: 'main' });
    rig.server.put({ id: 'not-mine', selectors: uid(2000) });
    await rig.start();
    const { svids } = (await first(rig.workload(), 'FetchWITSVID')) as { svids: WireWit[] };
    assert.deepEqual(
      svids.map(({ spiffe_id, hint }) => [spiffe_id, hint]),
      [
        [id('/a'), 'main'],
        [id('/b'), ''],
      ],
      'WA-20 a hint stands once',
    );
    for (const { spiffe_id, wit_svid, wit_svid_key } of svids) {
      const { claims, header: head } = decodeJwt(wit_svid);
      const jwk = JSON.parse(wit_svid_key);
      const key = createPrivateKey({ key: jwk, format: 'jwk' });
      const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
      assert.deepEqual(claims.cnf, { jwk: { ...publicJwk(spki), alg: jwk.alg } });
      assert.deepEqual([claims.sub, head.typ, jwk.kty], [spiffe_id, 'wit+jwt', keyType === 'ec-p256' ? 'EC' : 'RSA']);
    }
    assert.notEqual(svids[0]!.wit_svid_key, svids[1]!.wit_svid_key);
    rig.stop();
  });
}

test('one identity may be asked for; one that is not the caller’s is refused by name', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  await rig.start();
  assert.deepEqual(ids(await first(rig.workload(), 'FetchWITSVID', { spiffe_id: id('/b') })), [id('/b')]);
  assert.equal(rig.wits!.size, 1, 'nothing is made for others');
  await assert.rejects(
    first(rig.workload(), 'FetchWITSVID', { spiffe_id: id('/c') }),
    refusedAs(Status.PERMISSION_DENIED, /not entitled to "spiffe:\/\/example.org\/c"/),
  );
  await assert.rejects(first(rig.workload(), 'FetchWITSVID', { spiffe_id: 'c' }), refusedAs(Status.INVALID_ARGUMENT));
  const stream = follow(rig.workload(), 'FetchWITSVID', rig.clock, { spiffe_id: id('/b') });
  await stream.next();
  rig.server.remove('b');
  await rig.clock.advance(0);
  await assert.rejects(stream.next(), refusedAs(Status.PERMISSION_DENIED));
  rig.stop();
});

test('WIT-20 processes of one workload share a token and its key, and a process that comes later has it at once', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const [one, other] = await Promise.all([
    first(rig.workload(), 'FetchWITSVID'),
    first(rig.workload(), 'FetchWITSVID'),
  ]);
  assert.deepEqual(one, other);
  rig.server.outage = unreachable;
  assert.deepEqual(await first(rig.workload(), 'FetchWITSVID'), one);
  assert.equal(rig.server.count('BatchNewWITSVID'), 1);
  rig.stop();
});

test('WA-37 WA-26 bundles are JWK Sets as text, each key named: the own trust domain’s and those federated with', async () => {
  const rig = await offering();
  const other = testAuthority({ trustDomain: 'other.org', now: rig.clock.now() });
  const foreign = other.bundle();
  rig.server.putBundle({ ...foreign, witAuthorities: foreign.jwtAuthorities, jwtAuthorities: [] });
  rig.server.put({ id: 'a', federatesWith: [parseTrustDomain('other.org')] });
  await rig.start();
  const stream = follow(rig.workload(), 'FetchWITBundles', rig.clock);
  const kids = ({ bundles }: { bundles: Record<string, string> }) =>
    Object.fromEntries(
      Object.entries(bundles).map(([name, text]) => [
        name,
        JSON.parse(text).keys.map(({ kid }: { kid: string }) => kid),
      ]),
    );
  assert.deepEqual(kids(await stream.next()), {
    'spiffe://example.org': ['wit-1'],
    'spiffe://other.org': [other.jwtKeyId],
  });
  rig.server.witKeyId = 'wit-2';
  rig.server.offerWits();
  await rig.clock.advance(0);
  assert.deepEqual(kids(await stream.next())['spiffe://example.org'], ['wit-2']);
  rig.stop();
});

test('a verifier of federated tokens has their bundles where its own trust domain has no WIT-SVIDs', async () => {
  const rig = await agentRig({ wits: true });
  const foreign = testAuthority({ trustDomain: 'other.org', now: rig.clock.now() }).bundle();
  rig.server.putBundle({ ...foreign, witAuthorities: foreign.jwtAuthorities });
  rig.server.put({ id: 'a', federatesWith: [parseTrustDomain('other.org')] });
  await rig.start();
  const { bundles } = await first(rig.workload(), 'FetchWITBundles');
  assert.equal(bundles['spiffe://example.org'], '{"keys":[]}');
  await assert.rejects(first(rig.workload(), 'FetchWITSVID'), refusedAs(Status.UNIMPLEMENTED));
  rig.stop();
});

test('a stream gets a new token with a new key at half life, and the server is asked no sooner', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  const one = await stream.next();
  await rig.clock.advance(hour / 2 - 60_000);
  assert.equal(rig.server.count('BatchNewWITSVID'), 1);
  await rig.clock.advance(120_000);
  const other = await stream.next();
  assert.notEqual(other.svids[0].wit_svid, one.svids[0].wit_svid);
  assert.notEqual(other.svids[0].wit_svid_key, one.svids[0].wit_svid_key);
  assert.equal(rig.server.count('BatchNewWITSVID'), 2);
  stream.close();
  await rig.clock.advance(2 * hour);
  assert.equal(rig.server.count('BatchNewWITSVID'), 2, 'nobody wants it any more');
  rig.stop();
});

test('a token from when the clock was ahead, which nobody would believe yet, is replaced when the clock is set, and once only', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  const one = await stream.next();
  rig.clock.set(rig.clock.now() - 2 * hour);
  await rig.clock.advance(60_000);
  assert.equal(rig.server.count('BatchNewWITSVID'), 1, 'the timer goes on as before');
  rig.wits!.clockSet();
  await rig.clock.advance(1_000);
  const other = await stream.next();
  assert.notEqual(other.svids[0].wit_svid, one.svids[0].wit_svid);
  rig.wits!.clockSet();
  await rig.clock.advance(60_000);
  assert.equal(rig.server.count('BatchNewWITSVID'), 2);
  stream.close();
  rig.stop();
});

test('a stream gets another token when its entry changes, and when an identity comes or goes', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  const one = await stream.next();
  rig.server.put({ id: 'a', hint: 'new' });
  await rig.clock.advance(0);
  const hinted = await stream.next();
  assert.equal(hinted.svids[0].hint, 'new');
  const renewed = hinted.svids[0].wit_svid === one.svids[0].wit_svid ? await stream.next() : hinted;
  assert.notEqual(renewed.svids[0].wit_svid, one.svids[0].wit_svid);
  rig.server.put({ id: 'b' });
  await rig.clock.advance(0);
  assert.deepEqual(ids(await stream.next()), [id('/a'), id('/b')]);
  rig.server.remove('a');
  await rig.clock.advance(0);
  assert.deepEqual(ids(await stream.next()), [id('/b')]);
  assert.equal(rig.wits!.size, 1, 'of the one that is gone nothing is kept');
  rig.stop();
});

test('what a tainted authority signed is replaced at once, and said not to be in use after that', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  const one = await stream.next();
  assert.equal(rig.wits!.usesKey('wit-1'), true);
  rig.server.witKeyId = 'wit-2';
  rig.server.offerWits(hour, ['wit-1']);
  await rig.clock.advance(0);
  const other = await stream.next();
  assert.deepEqual(
    [one, other].map(({ svids }) => decodeJwt(svids[0].wit_svid).header.kid),
    ['wit-1', 'wit-2'],
  );
  assert.deepEqual([rig.wits!.usesKey('wit-1'), rig.wits!.usesKey('wit-2')], [false, true]);
  rig.stop();
});

test('a server that goes on signing with a tainted key is not asked without pause', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  await stream.next();
  rig.server.offerWits(hour, ['wit-1']);
  await rig.clock.advance(30_000);
  assert.ok(rig.server.count('BatchNewWITSVID') < 10, `${rig.server.count('BatchNewWITSVID')} requests`);
  rig.stop();
});

for (const [what, denied] of [
  ['a revocation of its name', (jti: string) => ({ tokenId: jti })],
  [
    'a revocation of all that its SPIFFE ID was issued',
    (_: string, at: number) => ({ subject: id('/a'), issuedBy: at }),
  ],
] as const) {
  test(`${what} has it replaced`, async () => {
    const rig = await offering();
    rig.server.put({ id: 'a' });
    await rig.start();
    const stream = rig.stream();
    const one = (await stream.next()).svids[0];
    await rig.clock.advance(5_000);
    const until = rig.clock.now() + hour;
    const jti = String(decodeJwt(one.wit_svid).claims.jti);
    rig.cache.apply({
      snapshot: false,
      entries: [],
      removedEntryIds: [],
      bundles: [],
      removedTrustDomains: [],
      ...rig.cache.position,
      revocations: revocations([], [{ until, ...denied(jti, rig.clock.now() - 2_000) }]),
    });
    await rig.clock.advance(0);
    assert.notEqual((await stream.next()).svids[0].wit_svid_key, one.wit_svid_key);
    rig.stop();
  });
}

test('while the server is away a token is served until it ends and not longer; then the stream waits, and goes on', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = rig.stream();
  const one = await stream.next();
  rig.server.outage = unreachable;
  await rig.clock.advance(hour - 1_000);
  assert.deepEqual(await first(rig.workload(), 'FetchWITSVID'), one);
  await rig.clock.advance(2_000);
  const late = first(rig.workload(), 'FetchWITSVID');
  late.catch(() => {});
  await rig.clock.advance(20_000);
  await assert.rejects(late, refusedAs(Status.UNAVAILABLE, /no WIT-SVID could be got from the server/));
  rig.server.outage = undefined;
  await rig.clock.advance(120_000);
  const { svids } = await stream.next();
  assert.ok(Number(decodeJwt(svids[0].wit_svid).claims.exp) * 1000 > rig.clock.now());
  rig.stop();
});

test('of two identities the one that is refused leaves the other; the server’s reason stays in the log', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  rig.server.instead.set('BatchNewWITSVID', (usual) => {
    const { results } = usual() as { results: { svid: { id: { path: string } } }[] };
    return {
      results: results.map((one) => (one.svid.id.path === '/a' ? { status: { code: 5, message: 'no' } } : one)),
    };
  });
  await rig.start();
  assert.deepEqual(ids(await first(rig.workload(), 'FetchWITSVID')), [id('/b')]);
  rig.server.remove('b');
  await rig.clock.advance(0);
  await assert.rejects(
    first(rig.workload(), 'FetchWITSVID'),
    refusedAs(Status.PERMISSION_DENIED, /no longer authorizes/),
  );
  rig.stop();
});

test('a server that has no such method any more ends the streams as UNIMPLEMENTED', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.witTtl = 0;
  await assert.rejects(first(rig.workload(), 'FetchWITSVID'), refusedAs(Status.UNIMPLEMENTED, /issues no WIT-SVIDs/));
  rig.stop();
});

for (const [what, spoil] of [
  ['another ID', (svid: any) => ({ ...svid, id: { trust_domain: 'example.org', path: '/other' } })],
  ['no token', (svid: any) => ({ ...svid, token: 'x' })],
  ['the token of another key', (svid: any, all: any[]) => ({ ...svid, token: all[1].svid.token, id: svid.id })],
] as const) {
  test(`an answer with ${what} is not handed on`, async () => {
    const rig = await offering();
    rig.server.put({ id: 'a' });
    rig.server.put({ id: 'b', spiffeId: id('/a') });
    rig.server.instead.set('BatchNewWITSVID', (usual) => {
      const { results } = usual() as { results: any[] };
      return { results: results.map((one, at) => (at === 0 ? { ...one, svid: spoil(one.svid, results) } : one)) };
    });
    await rig.start();
    const { svids } = await first(rig.workload(), 'FetchWITSVID');
    assert.equal(svids.length, 1);
    rig.stop();
  });
}

test('600 entries are asked for in batches that a server takes, and each has its own token', async () => {
  const rig = await offering();
  for (let n = 0; n < 600; n++) rig.server.put({ id: `e${n}`, disableX509SvidPrefetch: true });
  await rig.start();
  const { svids } = await first(rig.workload(), 'FetchWITSVID');
  assert.equal(new Set((svids as WireWit[]).map(({ wit_svid }) => wit_svid)).size, 600);
  assert.equal(rig.server.count('BatchNewWITSVID'), 6);
  rig.stop();
});

test('streams that come and go leave nothing wanted', async () => {
  const rig = await offering();
  rig.server.put({ id: 'a' });
  await rig.start();
  const waiting = rig.clock.waiting;
  for (let n = 0; n < 50; n++) await first(rig.workload(), 'FetchWITSVID');
  await rig.clock.advance(0);
  assert.ok(rig.clock.waiting <= waiting + 1, `${rig.clock.waiting} timers, ${waiting} before`);
  assert.deepEqual([rig.wits!.size, rig.wits!.usesKey('wit-1')], [1, false]);
  rig.stop();
});
