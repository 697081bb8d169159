import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import { splitCertificates } from '../../../src/crypto/certificate.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Fault } from '../../../src/errors.ts';
import type { Channel } from '../../../src/rpc/connect.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { agentRig, api, follow, header, id, leafOf } from '../support/agent-rig.ts';

const minute = 60_000;
const other = parseTrustDomain('other.org');
const unreachable = new Fault('peer/unavailable', 'cannot reach the server');
const uid = (number: number) => [parseSelector(`unix:uid:${number}`)];

const methods = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTSVID', 'FetchJWTBundles', 'ValidateJWTSVID'] as const;
const unary = new Set<string>(['FetchJWTSVID', 'ValidateJWTSVID']);
const filled: Record<string, object> = {
  FetchJWTSVID: { audience: ['x'] },
  ValidateJWTSVID: { audience: 'x', svid: 'y' },
};

/** The first message, or the refusal. */
async function first(
  channel: Channel,
  method: string,
  metadata: Record<string, string> = header,
  request = filled[method] ?? {},
) {
  if (unary.has(method)) return channel.unary(api, method, request, { metadata });
  const stream = channel.stream(api, method, request, { metadata });
  const { value } = await stream.next();
  await stream.return?.();
  return value;
}

for (const method of methods) {
  for (const [name, metadata] of [
    ['without the header', {}],
    ['with "True"', { 'workload.spiffe.io': 'True' }],
    ['with "false"', { 'workload.spiffe.io': 'false' }],
    ['with an empty value', { 'workload.spiffe.io': '' }],
  ] as const) {
    test(`WE-5 WE-6 SPI-01-008 ${method} ${name} is refused as INVALID_ARGUMENT`, async () => {
      const rig = await agentRig();
      rig.server.put({ id: 'a' });
      await rig.start();
      await assert.rejects(
        first(rig.workload(), method, metadata),
        (fault: Fault) => fault.status === 3 && /security header missing/.test(fault.message),
      );
      rig.stop();
    });
  }
}

test('WA-3 WE-19 both WIT methods answer UNIMPLEMENTED', async () => {
  const rig = await agentRig();
  for (const method of ['FetchWITSVID', 'FetchWITBundles']) {
    await assert.rejects(first(rig.workload(), method), (fault: Fault) => fault.status === 12);
  }
  rig.stop();
});

test('WE-14 WE-20 WA-1 WA-8 WA-15 WA-16 WA-17 WA-18 WA-19 the first message holds every identity, whole: DER chain, PKCS#8 key, own bundle', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', hint: 'main' });
  rig.server.put({ id: 'b' });
  rig.server.put({ id: 'not-mine', selectors: uid(2000) });
  await rig.start();
  const { svids, federated_bundles, crl } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(
    svids.map((svid: any) => [svid.spiffe_id, svid.hint]),
    [
      [id('/a'), 'main'],
      [id('/b'), ''],
    ],
  );
  assert.deepEqual([federated_bundles, crl], [{}, []]);
  for (const svid of svids) {
    const chain = splitCertificates(svid.x509_svid);
    assert.equal(verifyX509Svid(chain, rig.server.authority.bundle(), rig.clock.now()).id, svid.spiffe_id);
    const key = createPrivateKey({ key: svid.x509_svid_key, format: 'der', type: 'pkcs8' });
    assert.ok(createPublicKey(key).export({ type: 'spki', format: 'der' }).equals(leafOf(svid).spki));
    assert.deepEqual(splitCertificates(svid.bundle), [rig.server.authority.der]);
  }
  rig.stop();
});

test('WA-23 the default identity is the oldest entry: one added later never takes its place', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'z', createdAt: 100 });
  rig.server.put({ id: 'a', createdAt: 200 });
  rig.server.put({ id: 'b', createdAt: 200 });
  await rig.start();
  const { svids } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(
    svids.map((svid: any) => svid.spiffe_id),
    [id('/z'), id('/a'), id('/b')],
  );
  rig.stop();
});

test('WA-20 WA-22 a hint several entries have goes with the oldest, by id when they are as old; one over 1024 bytes with none', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'c', createdAt: 300, hint: 'h' });
  rig.server.put({ id: 'b', createdAt: 200, hint: 'h' });
  rig.server.put({ id: 'a', createdAt: 200, hint: 'h' });
  rig.server.put({ id: 'd', createdAt: 400, hint: 'é'.repeat(513) });
  await rig.start();
  const { svids } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(
    svids.map((svid: any) => [svid.spiffe_id, svid.hint]),
    [
      [id('/a'), 'h'],
      [id('/b'), ''],
      [id('/c'), ''],
      [id('/d'), ''],
    ],
  );
  rig.stop();
});

test('admin and downstream entries are served to their workloads; entries for stores never', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'admin', admin: true });
  rig.server.put({ id: 'down', downstream: true });
  rig.server.put({ id: 'store', storeSvid: true });
  await rig.start();
  const { svids } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(
    svids.map((svid: any) => svid.spiffe_id),
    [id('/admin'), id('/down')],
  );
  const jwt = await first(rig.workload(), 'FetchJWTSVID');
  assert.deepEqual(
    jwt.svids.map((svid: any) => svid.spiffe_id),
    [id('/admin'), id('/down')],
  );
  rig.stop();
});

test('WA-7 WA-9 each change brings the full state, and only a change does', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  assert.equal((await stream.next()).svids.length, 1);
  rig.server.put({ id: 'not-mine', selectors: uid(2000) });
  rig.server.put({ id: 'b' });
  await rig.clock.advance(0);
  const second = await stream.next();
  assert.deepEqual(
    second.svids.map((svid: any) => svid.spiffe_id),
    [id('/a'), id('/b')],
  );
  rig.server.put({ id: 'not-mine', selectors: uid(2000), hint: 'x' });
  assert.ok(await stream.isSilent());
  rig.stop();
});

test('a renewed SVID reaches the open stream', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const stream = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  const before = leafOf((await stream.next()).svids[0]);
  await rig.clock.advance(31 * minute);
  const after = leafOf((await stream.next()).svids[0]);
  assert.notEqual(after.serial, before.serial);
  assert.ok(!after.spki.equals(before.spki));
  rig.stop();
});

test('a new bundle reaches every open stream, with the SVID as it was', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const svids = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  const x509 = follow(rig.workload(), 'FetchX509Bundles', rig.clock);
  const jwt = follow(rig.workload(), 'FetchJWTBundles', rig.clock);
  const before = (await svids.next()).svids[0];
  await x509.next();
  await jwt.next();
  const next = testAuthority({ now: rig.clock.now() });
  const bundle = rig.server.authority.bundle();
  rig.server.putBundle({
    ...bundle,
    sequence: 2n,
    x509Authorities: [...bundle.x509Authorities, ...next.bundle().x509Authorities],
    jwtAuthorities: [...bundle.jwtAuthorities, ...next.bundle().jwtAuthorities],
  });
  await rig.clock.advance(0);
  const after = (await svids.next()).svids[0];
  assert.ok(after.x509_svid.equals(before.x509_svid));
  assert.deepEqual(splitCertificates(after.bundle), [rig.server.authority.der, next.der]);
  assert.equal(splitCertificates((await x509.next()).bundles['spiffe://example.org']).length, 2);
  assert.equal(JSON.parse((await jwt.next()).bundles['spiffe://example.org'].toString()).keys.length, 2);
  rig.stop();
});

for (const method of methods.filter((name) => name !== 'ValidateJWTSVID')) {
  test(`WE-16 WA-24 ${method} by a process without an identity: PERMISSION_DENIED names its selectors and what to do`, async () => {
    const rig = await agentRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(first(rig.workload('unix:uid:7', 'unix:gid:8'), method), (fault: Fault) => {
      assert.equal(fault.status, 7);
      assert.match(fault.message, /^no identity issued: .*unix:gid:8 unix:uid:7/);
      assert.match(
        fault.message,
        /mutual entry create --parent-id spiffe:\/\/example.org\/spire\/agent\/fake\/node .* --selector unix:uid:7/,
      );
      return true;
    });
    rig.stop();
  });
}

test('an entry that the server has and the agent has not yet is waited for before anybody is refused', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.silent = true;
  rig.server.put({ id: 'b', selectors: uid(7) });
  const got: any[] = [];
  void first(rig.workload('unix:uid:7'), 'FetchX509SVID').then((message) => {
    got.push(message.svids[0]);
  });
  await rig.clock.advance(300);
  assert.equal(got.length, 0);
  rig.server.silent = false;
  rig.server.put({ id: 'c', selectors: uid(9) });
  await rig.clock.advance(0);
  assert.equal(got[0]?.spiffe_id, id('/b'));
  rig.stop();
});

test('a process without an identity is held for a second at most', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.silent = true;
  const got: any[] = [];
  void first(rig.workload('unix:uid:7'), 'FetchX509SVID').catch((fault) => {
    got.push(fault);
  });
  await rig.clock.advance(999);
  assert.equal(got.length, 0);
  await rig.clock.advance(1);
  assert.equal(got[0]?.status, 7);
  rig.stop();
});

test('WE-15 before the agent has known any entries it is UNAVAILABLE, not PERMISSION_DENIED', async () => {
  const rig = await agentRig();
  rig.server.outage = unreachable;
  await rig.start();
  await assert.rejects(first(rig.workload(), 'FetchX509SVID'), (fault: Fault) => fault.status === 14);
  rig.stop();
});

for (const method of ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'] as const) {
  test(`WA-25 ${method}: losing the last entry ends the stream with PERMISSION_DENIED`, async () => {
    const rig = await agentRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    const stream = follow(rig.workload(), method, rig.clock);
    await stream.next();
    rig.server.remove('a');
    await rig.clock.advance(0);
    await assert.rejects(
      stream.next(),
      (fault: Fault) => fault.status === 7 && fault.message.startsWith('no identity issued'),
    );
    rig.stop();
  });
}

test('WA-25 losing one identity of two redacts it at once, without waiting for anything', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  await rig.start();
  const stream = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  assert.equal((await stream.next()).svids.length, 2);
  rig.server.instead.set('BatchNewX509SVID', () => new Promise(() => {}));
  rig.server.entries.delete('a');
  rig.server.put({ id: 'c' });
  await rig.clock.advance(0);
  assert.deepEqual(
    (await stream.next()).svids.map((svid: any) => svid.spiffe_id),
    [id('/b')],
  );
  rig.stop();
});

test('an entry whose selectors change moves its identity to whoever matches now', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  rig.server.put({ id: 'c', selectors: uid(2000) });
  await rig.start();
  const loser = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  const winner = follow(rig.workload('unix:uid:2000'), 'FetchX509SVID', rig.clock);
  await loser.next();
  await winner.next();
  rig.server.put({ id: 'a', selectors: uid(2000) });
  await rig.clock.advance(0);
  assert.deepEqual(
    (await loser.next()).svids.map((svid: any) => svid.spiffe_id),
    [id('/b')],
  );
  const won = (await winner.next()).svids.map((svid: any) => svid.spiffe_id);
  assert.deepEqual(won.sort(), [id('/a'), id('/c')]);
  rig.stop();
});

test('an SVID on its way is waited for; when the server cannot be reached the caller is told UNAVAILABLE at once', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', disableX509SvidPrefetch: true });
  await rig.start();
  const later = Promise.withResolvers<void>();
  rig.server.instead.set('BatchNewX509SVID', async (usual) => {
    await later.promise;
    return usual();
  });
  const stream = follow(rig.workload(), 'FetchX509SVID', rig.clock);
  const got: any[] = [];
  void stream.next().then((value) => {
    got.push(value);
  });
  await rig.clock.advance(5_000);
  assert.equal(got.length, 0);
  later.resolve();
  await rig.clock.advance(0);
  assert.equal(got[0].svids.length, 1);

  rig.server.instead.set('BatchNewX509SVID', () => {
    throw unreachable;
  });
  rig.server.put({ id: 'b', selectors: uid(9), disableX509SvidPrefetch: true });
  await rig.clock.advance(0);
  await assert.rejects(first(rig.workload('unix:uid:9'), 'FetchX509SVID'), (fault: Fault) => fault.status === 14);
  rig.stop();
});

test('an identity that the server refuses to sign does not keep the others from being served', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  rig.server.instead.set('BatchNewX509SVID', (usual) => {
    const { results } = usual() as any;
    return {
      results: results.map((result: any) =>
        result.svid.id.path === '/a' ? { status: { code: 5, message: 'no' } } : result,
      ),
    };
  });
  await rig.start();
  const { svids } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(
    svids.map((svid: any) => svid.spiffe_id),
    [id('/b')],
  );
  rig.stop();
});

test('an expired SVID is never served', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  await first(rig.workload(), 'FetchX509SVID');
  rig.server.outage = unreachable;
  await rig.clock.advance(59 * minute);
  assert.equal((await first(rig.workload(), 'FetchX509SVID')).svids.length, 1);
  await rig.clock.advance(2 * minute);
  await assert.rejects(first(rig.workload(), 'FetchX509SVID'), (fault: Fault) => fault.status === 14);
  rig.stop();
});

test('WA-26 WA-19 WA-31 bundles: the own trust domain, and what the entries federate with, keyed by ID', async () => {
  const rig = await agentRig();
  const foreign = testAuthority({ trustDomain: other, now: rig.clock.now() });
  rig.server.put({ id: 'a', federatesWith: [other] });
  rig.server.put({ id: 'b', selectors: uid(7) });
  rig.server.putBundle(foreign.bundle());
  await rig.start();
  const { bundles } = await first(rig.workload(), 'FetchX509Bundles');
  assert.deepEqual(Object.keys(bundles).sort(), ['spiffe://example.org', 'spiffe://other.org']);
  assert.deepEqual(splitCertificates(bundles['spiffe://other.org']), [foreign.der]);
  const { federated_bundles } = await first(rig.workload(), 'FetchX509SVID');
  assert.deepEqual(Object.keys(federated_bundles), ['spiffe://other.org']);
  const jwt = await first(rig.workload(), 'FetchJWTBundles');
  const set = JSON.parse(jwt.bundles['spiffe://other.org'].toString());
  assert.equal(set.keys.length, 1);
  assert.equal(set.keys[0].kid, foreign.jwtKeyId);
  assert.deepEqual([set.keys[0].use, set.keys[0].x5c], [undefined, undefined]);
  // Who federates with nobody sees nobody else's bundle.
  assert.deepEqual(Object.keys((await first(rig.workload('unix:uid:7'), 'FetchX509Bundles')).bundles), [
    'spiffe://example.org',
  ]);
  rig.stop();
});

test('a federated bundle that goes away leaves the next message', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', federatesWith: [other] });
  rig.server.putBundle(testAuthority({ trustDomain: other, now: rig.clock.now() }).bundle());
  await rig.start();
  const stream = follow(rig.workload(), 'FetchX509Bundles', rig.clock);
  assert.equal(Object.keys((await stream.next()).bundles).length, 2);
  rig.server.bundles.delete(other);
  rig.server.put({ id: 'z', selectors: uid(7) });
  await rig.clock.advance(0);
  assert.equal(Object.keys((await stream.next()).bundles).length, 1);
  rig.stop();
});

test('processes without an entry get the bundles, and nothing else, where the operator allows it', async () => {
  const rig = await agentRig({ api: { allowUnauthenticatedVerifiers: true } });
  rig.server.put({ id: 'a' });
  await rig.start();
  const stranger = rig.workload('unix:uid:7');
  assert.deepEqual(Object.keys((await first(stranger, 'FetchX509Bundles')).bundles), ['spiffe://example.org']);
  assert.deepEqual(Object.keys((await first(stranger, 'FetchJWTBundles')).bundles), ['spiffe://example.org']);
  await assert.rejects(first(stranger, 'FetchX509SVID'), (fault: Fault) => fault.status === 7);
  // The next question to the server waits a little.
  await rig.clock.advance(100);
  await assert.rejects(first(stranger, 'FetchJWTSVID'), (fault: Fault) => fault.status === 7);
  rig.stop();
});

test('WA-1 WA-28 WA-29 a JWT-SVID for each identity, with the audiences asked for', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', hint: 'main' });
  rig.server.put({ id: 'b' });
  await rig.start();
  const { svids } = await rig
    .workload()
    .unary(api, 'FetchJWTSVID', { audience: ['y', 'x', 'y'] }, { metadata: header });
  assert.deepEqual(
    svids.map((svid: any) => [svid.spiffe_id, svid.hint]),
    [
      [id('/a'), 'main'],
      [id('/b'), ''],
    ],
  );
  for (const svid of svids) {
    const { claims } = decodeJwt(svid.svid);
    assert.equal(claims.sub, svid.spiffe_id);
    assert.deepEqual(claims.aud, ['x', 'y']);
  }
  rig.stop();
});

test('WA-29 WA-30 one identity by its ID; one that the process is not entitled to is PERMISSION_DENIED', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  rig.server.put({ id: 'c', selectors: uid(7) });
  await rig.start();
  const ask = (spiffe_id: string) =>
    rig.workload().unary(api, 'FetchJWTSVID', { audience: ['x'], spiffe_id }, { metadata: header });
  assert.deepEqual(
    (await ask(id('/b'))).svids.map((svid: any) => svid.spiffe_id),
    [id('/b')],
  );
  await assert.rejects(ask(id('/c')), (fault: Fault) => fault.status === 7);
  await assert.rejects(ask('spiffe://example.org/a/'), (fault: Fault) => fault.status === 3);
  rig.stop();
});

for (const [name, request] of [
  ['no audience', { audience: [] }],
  ['an empty audience', { audience: [''] }],
] as const) {
  test(`WA-12 WA-28 FetchJWTSVID with ${name} is INVALID_ARGUMENT`, async () => {
    const rig = await agentRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(
      rig.workload().unary(api, 'FetchJWTSVID', request, { metadata: header }),
      (fault: Fault) => fault.status === 3,
    );
    rig.stop();
  });
}

test('what the server says of the agent is not told to workloads', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.instead.set('NewJWTSVID', () => {
    throw new Fault('caller/denied', 'secret reason', { reason: 'AGENT_NOT_ACTIVE' });
  });
  await assert.rejects(first(rig.workload(), 'FetchJWTSVID'), (fault: Fault) => {
    assert.equal(fault.status, 14);
    assert.equal(fault.reason, undefined);
    return !fault.message.includes('secret reason');
  });
  rig.stop();
});

test('WA-32 WA-34 a valid token: its ID and every claim, also for a process without an entry', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const svid = rig.server.authority.jwt({ aud: ['x'], custom: { deep: [1, true, null, 'text'] } });
  for (const caller of [rig.workload(), rig.workload('unix:uid:7')]) {
    const { spiffe_id, claims } = await caller.unary(
      api,
      'ValidateJWTSVID',
      { audience: 'x', svid },
      { metadata: header },
    );
    assert.equal(spiffe_id, id('/workload'));
    assert.equal(claims.fields.sub.stringValue, id('/workload'));
    assert.equal(claims.fields.aud.listValue.values[0].stringValue, 'x');
    assert.equal(typeof claims.fields.exp.numberValue, 'number');
    assert.deepEqual(
      claims.fields.custom.structValue.fields.deep.listValue.values.map((value: any) => value.kind),
      ['numberValue', 'boolValue', 'nullValue', 'stringValue'],
    );
  }
  rig.stop();
});

test('a token found valid once is refused all the same when it ends, for another audience, and once its key is gone', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const svid = rig.server.authority.jwt({ aud: ['x', 'y'], exp: Math.floor(rig.clock.now() / 1000) + 300 });
  const ask = (audience: string) =>
    rig.workload().unary(api, 'ValidateJWTSVID', { audience, svid }, { metadata: header });
  const refused = (fault: Fault) => fault.status === 3;
  const first = await ask('x');
  assert.deepEqual(await ask('x'), first);
  await assert.rejects(ask('z'), refused);
  const bundle = rig.server.authority.bundle();
  rig.server.putBundle({ ...bundle, sequence: 2n, jwtAuthorities: [] });
  await rig.clock.advance(0);
  await assert.rejects(ask('x'), refused);
  rig.server.putBundle({ ...bundle, sequence: 3n });
  await rig.clock.advance(0);
  assert.deepEqual(await ask('x'), first);
  await rig.clock.advance(306_000);
  await assert.rejects(ask('x'), refused);
  rig.stop();
});

test('a foreign token found valid for one process is not valid for another that does not federate', async () => {
  const rig = await agentRig();
  const foreign = testAuthority({ trustDomain: other, now: rig.clock.now() });
  rig.server.put({ id: 'a', federatesWith: [other] });
  rig.server.put({ id: 'b', selectors: uid(7) });
  rig.server.putBundle(foreign.bundle());
  await rig.start();
  const request = { audience: 'x', svid: foreign.jwt({ aud: ['x'] }) };
  await rig.workload().unary(api, 'ValidateJWTSVID', request, { metadata: header });
  const refused = (fault: Fault) => fault.status === 3;
  await assert.rejects(
    rig.workload('unix:uid:7').unary(api, 'ValidateJWTSVID', request, { metadata: header }),
    refused,
  );
  rig.stop();
});

for (const [name, make] of [
  ['WA-33 no token', () => ({ svid: '', audience: 'x' })],
  ['WA-33 no audience', (rig: any) => ({ svid: rig.server.authority.jwt({ aud: ['x'] }), audience: '' })],
  ['JWT-8 another audience', (rig: any) => ({ svid: rig.server.authority.jwt({ aud: ['x'] }), audience: 'y' })],
  [
    'JWT-11 past its end',
    (rig: any) => ({
      svid: rig.server.authority.jwt({ aud: ['x'], exp: Math.floor(rig.clock.now() / 1000) - 10 }),
      audience: 'x',
    }),
  ],
  [
    'JWT-11 without an end',
    (rig: any) => ({ svid: rig.server.authority.jwt({ aud: ['x'], exp: undefined }), audience: 'x' }),
  ],
  [
    'JWT-3 unsigned',
    (rig: any) => ({ svid: rig.server.authority.jwt({ aud: ['x'] }, { alg: 'none' }), audience: 'x' }),
  ],
  [
    'JWT-16 by an unknown key',
    (rig: any) => ({ svid: testAuthority({ now: rig.clock.now() }).jwt({ aud: ['x'] }), audience: 'x' }),
  ],
  [
    'of a trust domain that nobody federates with',
    (rig: any) => ({
      svid: testAuthority({ trustDomain: other, now: rig.clock.now() }).jwt({ aud: ['x'] }),
      audience: 'x',
    }),
  ],
  ['that is no token', () => ({ svid: 'hello', audience: 'x' })],
] as const) {
  test(`WA-32 SPIRE 1.12.3 ValidateJWTSVID of a token ${name} is INVALID_ARGUMENT`, async () => {
    const rig = await agentRig();
    rig.server.put({ id: 'a' });
    await rig.start();
    await assert.rejects(
      rig.workload().unary(api, 'ValidateJWTSVID', make(rig), { metadata: header }),
      (fault: Fault) => fault.status === 3,
    );
    rig.stop();
  });
}

test('WA-35 of a foreign token only sub, aud, exp and the allowed claims are told', async () => {
  const rig = await agentRig({ api: { allowedForeignJwtClaims: ['team'] } });
  const foreign = testAuthority({ trustDomain: other, now: rig.clock.now() });
  rig.server.put({ id: 'a', federatesWith: [other] });
  rig.server.putBundle(foreign.bundle());
  await rig.start();
  const svid = foreign.jwt({ aud: ['x'], team: 'blue', admin: true });
  const { claims } = await rig.workload().unary(api, 'ValidateJWTSVID', { audience: 'x', svid }, { metadata: header });
  assert.deepEqual(Object.keys(claims.fields).sort(), ['aud', 'exp', 'sub', 'team']);
  // A process that federates with nobody cannot validate it at all.
  await assert.rejects(
    rig.workload('unix:uid:7').unary(api, 'ValidateJWTSVID', { audience: 'x', svid }, { metadata: header }),
    (fault: Fault) => fault.status === 3,
  );
  rig.stop();
});

test('a message is encoded once for all who are entitled to the same, whatever their other selectors', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const one = rig.cache.identities(['unix:uid:1000', 'unix:gid:1'].map(parseSelector));
  const two = rig.cache.identities(['unix:uid:1000', 'unix:gid:2'].map(parseSelector));
  let made = 0;
  const make = () => ({ value: { made: ++made }, until: Number.POSITIVE_INFINITY });
  assert.equal(one.memo('m', make), two.memo('m', make));
  assert.equal(made, 1);
  rig.server.put({ id: 'b', selectors: uid(7) });
  await rig.clock.advance(0);
  one.memo('m', make);
  assert.equal(made, 1);
  rig.server.put({ id: 'a', hint: 'h' });
  await rig.clock.advance(0);
  one.memo('m', make);
  assert.equal(made, 2);
  rig.stop();
});

test('a caller who goes away is forgotten: its SVIDs are nobody’s wish any more', async () => {
  const rig = await agentRig({ capacity: 1 });
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b', selectors: uid(7) });
  await rig.start();
  const streams = ['unix:uid:1000', 'unix:uid:7'].map((selector) =>
    follow(rig.workload(selector), 'FetchX509SVID', rig.clock),
  );
  for (const stream of streams) await stream.next();
  assert.equal(rig.cache.wanted.size, 2);
  for (const stream of streams) await stream.close();
  await rig.clock.advance(0);
  assert.equal(rig.cache.wanted.size, 1);
  rig.stop();
});
