import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAudience } from '../../agent/jwt-cache.ts';
import { Fault } from '../../src/errors.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { agentRig, id } from './support/agent-rig.ts';

const unreachable = new Fault('peer/unavailable', 'cannot reach the server');

async function rigWith(entry: object = {}, options: object = {}) {
  const rig = await agentRig(options);
  rig.server.put({ id: 'a', ...entry });
  await rig.start();
  const fetch = async (...audience: string[]) => rig.jwts.fetch(rig.cache.entries.get('a')!, readAudience(audience));
  return { ...rig, fetch };
}

test('the same audiences in any order are one token; others are others', async () => {
  const rig = await rigWith();
  const one = await rig.fetch('x', 'y');
  assert.equal(await rig.fetch('y', 'x', 'y'), one);
  assert.notEqual((await rig.fetch('x')).token, one.token);
  assert.equal(rig.server.count('NewJWTSVID'), 2);
  rig.stop();
});

test('audiences that would join to one text are still different', async () => {
  const rig = await rigWith();
  const tokens = new Set([
    (await rig.fetch('x', 'y')).token,
    (await rig.fetch('x,y')).token,
    (await rig.fetch('x\ny')).token,
    (await rig.fetch('["x","y"]')).token,
  ]);
  assert.equal(tokens.size, 4);
  rig.stop();
});

test('a kept token comes without a promise, so that nothing is waited for', async () => {
  const rig = await rigWith();
  await rig.fetch('x');
  assert.ok(!(rig.jwts.fetch(rig.cache.entries.get('a')!, ['x']) instanceof Promise));
  rig.stop();
});

test('two entries with one SPIFFE ID never share a token', async () => {
  const rig = await rigWith();
  // As old and in the same revision: nothing but the id tells them apart.
  rig.server.put({ id: 'b', spiffeId: id('/a'), createdAt: rig.cache.entries.get('a')!.createdAt });
  await rig.clock.advance(0);
  const one = await rig.fetch('x');
  const other = await rig.jwts.fetch(rig.cache.entries.get('b')!, ['x']);
  assert.notEqual(one.token, other.token);
  rig.stop();
});

test('a token with a jti is made for each request and never kept', async () => {
  const rig = await rigWith({ jwtSvidIncludeJti: true });
  assert.notEqual((await rig.fetch('x')).token, (await rig.fetch('x')).token);
  assert.equal(rig.jwts.size, 0);
  rig.stop();
});

test('many who ask at once cost one request', async () => {
  const rig = await rigWith();
  const tokens = await Promise.all(Array.from({ length: 20 }, () => rig.fetch('x')));
  assert.equal(new Set(tokens).size, 1);
  assert.equal(rig.server.count('NewJWTSVID'), 1);
  rig.stop();
});

test('past half life a token is fetched anew', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  await rig.clock.advance(149_000);
  assert.equal(await rig.fetch('x'), first);
  await rig.clock.advance(2_000);
  assert.notEqual((await rig.fetch('x')).token, first.token);
  rig.stop();
});

test('while the server is away a token is served until it expires, and the server is not asked each time', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  rig.server.outage = unreachable;
  await rig.clock.advance(200_000);
  rig.server.calls.length = 0;
  for (let call = 0; call < 10; call++) assert.equal(await rig.fetch('x'), first);
  assert.equal(rig.server.count('NewJWTSVID'), 1);
  await rig.clock.advance(99_000);
  assert.equal(await rig.fetch('x'), first);
  await rig.clock.advance(1_000);
  await assert.rejects(rig.fetch('x'), /cannot reach the server/);
  rig.stop();
});

test('a server that says when to come again is not asked for a token before', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  await rig.clock.advance(200_000);
  rig.server.outage = new Fault('limit/exceeded', 'too many at once', { retryAfterMs: 40_000 });
  assert.equal(await rig.fetch('x'), first);
  rig.server.calls.length = 0;
  await rig.clock.advance(39_999);
  assert.equal(await rig.fetch('x'), first);
  assert.equal(rig.server.count('NewJWTSVID'), 0);
  await rig.clock.advance(1);
  assert.equal(await rig.fetch('x'), first);
  assert.equal(rig.server.count('NewJWTSVID'), 1);
  rig.stop();
});

test('a server that does not answer holds a caller for half a second while an old token would do', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  await rig.clock.advance(200_000);
  const slow = Promise.withResolvers<unknown>();
  rig.server.instead.set('NewJWTSVID', () => slow.promise);
  let got: unknown;
  void rig.fetch('x').then((token) => {
    got = token;
  });
  await rig.clock.advance(499);
  assert.equal(got, undefined);
  await rig.clock.advance(1);
  assert.equal(got, first);
  slow.reject(unreachable);
  rig.stop();
});

test('tokens are fetched anew ahead of their end while somebody uses them, and no longer', async () => {
  const rig = await rigWith();
  const stop = new AbortController();
  const running = rig.jwts.run(stop.signal).catch(() => {});
  await rig.fetch('x');
  for (let i = 0; i < 40; i += 1) await rig.clock.advance(60_000);
  const meanwhile = rig.server.count('NewJWTSVID');
  assert.ok(meanwhile > 5, `${meanwhile} tokens in forty minutes`);
  // An hour after the last use they are left to expire.
  for (let i = 0; i < 60; i += 1) await rig.clock.advance(60_000);
  const late = rig.server.count('NewJWTSVID');
  for (let i = 0; i < 60; i += 1) await rig.clock.advance(60_000);
  assert.equal(rig.server.count('NewJWTSVID'), late);
  stop.abort();
  await rig.clock.advance(60_000);
  await running;
  rig.stop();
});

test('a refusal of the entry itself is passed on, whatever is kept', async () => {
  const rig = await rigWith();
  await rig.fetch('x');
  await rig.clock.advance(200_000);
  rig.server.entries.delete('a');
  await assert.rejects(rig.fetch('x'), /entry not found/);
  rig.stop();
});

test('a changed entry gets new tokens', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  rig.server.put({ id: 'a', jwtSvidTtl: 60 });
  await rig.clock.advance(0);
  assert.notEqual((await rig.fetch('x')).token, first.token);
  rig.stop();
});

test('tokens of a tainted key are dropped', async () => {
  const rig = await rigWith();
  const first = await rig.fetch('x');
  const bundle = rig.server.bundles.get(parseTrustDomain('example.org'))!;
  rig.server.putBundle({
    ...bundle,
    sequence: 2n,
    jwtAuthorities: bundle.jwtAuthorities.map((one) => ({ ...one, tainted: true })),
  });
  await rig.clock.advance(0);
  assert.notEqual((await rig.fetch('x')).token, first.token);
  rig.stop();
});

test('a token that was on its way while its key was tainted is given to who asked, and not kept', async () => {
  const rig = await rigWith();
  const arrived = Promise.withResolvers<void>();
  rig.server.instead.set('NewJWTSVID', async (usual) => {
    const token = usual();
    await arrived.promise;
    return token;
  });
  const asked = rig.fetch('x');
  const bundle = rig.server.bundles.get(parseTrustDomain('example.org'))!;
  const jwtAuthorities = bundle.jwtAuthorities.map((one) => ({ ...one, tainted: true }));
  rig.server.putBundle({ ...bundle, sequence: 2n, jwtAuthorities });
  await rig.clock.advance(0);
  arrived.resolve();
  const late = await asked;
  rig.server.instead.delete('NewJWTSVID');
  assert.equal(rig.jwts.size, 0);
  assert.equal(rig.jwts.usesKey(bundle.jwtAuthorities[0]!.keyId), false);
  assert.notEqual((await rig.fetch('x')).token, late.token);
  rig.stop();
});

test('no more tokens are kept than configured', async () => {
  const rig = await rigWith({}, { jwtCapacity: 3 });
  for (let audience = 0; audience < 10; audience++) await rig.fetch(`${audience}`);
  assert.equal(rig.jwts.size, 3);
  rig.stop();
});

test('a token for another identity is not taken', async () => {
  const rig = await rigWith();
  rig.server.instead.set('NewJWTSVID', (usual) => {
    const { svid } = usual() as any;
    return { svid: { ...svid, id: { trust_domain: 'example.org', path: '/other' } } };
  });
  await assert.rejects(rig.fetch('x'), /not for "spiffe:\/\/example.org\/a"/);
  assert.equal(rig.jwts.size, 0);
  rig.stop();
});

for (const [name, audience, refusal] of [
  ['none', [], /audience is empty/],
  ['an empty value', ['x', ''], /empty value/],
  ['a value over 2048 bytes', ['x'.repeat(2049)], /longer than 2048 bytes/],
  ['more than a hundred', Array.from({ length: 101 }, (_, index) => `${index}`), /101 audiences/],
] as const) {
  test(`WA-28 WA-12 audience: ${name} is refused`, () => {
    assert.throws(
      () => readAudience(audience),
      (fault: Fault) => refusal.test(fault.message) && fault.status === 3,
    );
  });
}
