import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { test } from 'node:test';
import { Fault } from '../../src/errors.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { agentRig, id } from './support/agent-rig.ts';
import { domain } from './support/fake-server.ts';

const minute = 60_000;
const unreachable = new Fault('peer/unavailable', 'cannot reach the server');
const selectors = ['unix:uid:1000'].map(parseSelector);

test('every entry has its SVID before anybody asks, each with a key of its own', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  await rig.start();
  assert.deepEqual([...rig.cache.svids.keys()].sort(), ['a', 'b']);
  assert.equal(rig.server.count('BatchNewX509SVID'), 1);
  const [one, two] = [...rig.cache.svids.values()];
  assert.ok(!one?.pkcs8.equals(two!.pkcs8));
  rig.stop();
});

for (const [keyType, details] of [
  ['ec-p256', { namedCurve: 'prime256v1' }],
  ['ec-p384', { namedCurve: 'secp384r1' }],
] as const) {
  test(`keys of workloads are ${keyType} when so configured`, async () => {
    const rig = await agentRig({ keyType });
    rig.server.put({ id: 'a' });
    await rig.start();
    const key = createPrivateKey({ key: rig.cache.svids.get('a')!.pkcs8, format: 'der', type: 'pkcs8' });
    assert.deepEqual(key.asymmetricKeyDetails, details);
    rig.stop();
  });
}

test('an SVID is renewed at half life with a new key, and the old one is served until then', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const first = rig.cache.svids.get('a')!;
  await rig.clock.advance(29 * minute);
  assert.equal(rig.cache.svids.get('a'), first);
  await rig.clock.advance(2 * minute);
  const second = rig.cache.svids.get('a')!;
  assert.ok(!second.pkcs8.equals(first.pkcs8));
  assert.ok(second.notAfter > first.notAfter);
  rig.stop();
});

test('what ends first is renewed first', async () => {
  const rig = await agentRig({ capacity: 1000 });
  rig.server.put({ id: 'long', x509SvidTtl: 7200 });
  rig.server.put({ id: 'short', x509SvidTtl: 600 });
  rig.server.put({ id: 'middle', x509SvidTtl: 3600 });
  await rig.start();
  rig.server.outage = unreachable;
  await rig.clock.advance(70 * minute);
  rig.server.issued.length = 0;
  rig.server.outage = undefined;
  await rig.clock.advance(5 * minute);
  assert.deepEqual(rig.server.issued.slice(0, 3), ['short', 'middle', 'long']);
  rig.stop();
});

test('a changed entry gets a new SVID at once; one whose ID changed is never served with the old one', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const first = rig.cache.svids.get('a')!;
  rig.server.put({ id: 'a', dnsNames: ['a.test'] });
  await rig.clock.advance(0);
  const second = rig.cache.svids.get('a')!;
  assert.notEqual(second, first);
  assert.equal(second.revision, 1);
  rig.server.outage = unreachable;
  rig.cache.apply({
    snapshot: false,
    entries: [{ ...rig.cache.entries.get('a')!, spiffeId: id('/elsewhere'), revision: 2 }],
    removedEntryIds: [],
    bundles: [],
    removedTrustDomains: [],
    ...rig.cache.position,
  });
  assert.equal(rig.cache.svidFor(rig.cache.entries.get('a')!), undefined);
  rig.stop();
});

test('a removed entry takes its SVID with it', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.remove('a');
  await rig.clock.advance(0);
  assert.equal(rig.cache.svids.size, 0);
  rig.stop();
});

test('an entry is gone at its expiry, whatever the server still says', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', expiresAt: Math.floor(rig.clock.now() / 1000) + 600 });
  await rig.start();
  assert.equal(rig.cache.svids.size, 1);
  await rig.clock.advance(599_000);
  assert.equal(rig.cache.identities(selectors).entries.length, 1);
  await rig.clock.advance(2_000);
  assert.equal(rig.cache.identities(selectors).entries.length, 0);
  assert.equal(rig.cache.svids.size, 0);
  rig.stop();
});

test('entries for stores, node aliases and IDs below /spire are never asked for', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'store', storeSvid: true });
  rig.server.put({ id: 'alias', selectors: [parseSelector('spiffe_id:spiffe://example.org/spire/agent/x')] });
  rig.server.put({ id: 'agent', spiffeId: id('/spire/agent/x') });
  rig.server.put({ id: 'admin', admin: true, downstream: true });
  await rig.start();
  assert.deepEqual(rig.server.issued, ['admin']);
  rig.stop();
});

test('an entry that disables prefetch gets an SVID when somebody wants it, not before', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a', disableX509SvidPrefetch: true });
  await rig.start();
  assert.deepEqual(rig.server.issued, []);
  const unfollow = rig.cache.identities(selectors).follow(() => {});
  await rig.clock.advance(0);
  assert.deepEqual(rig.server.issued, ['a']);
  unfollow();
  rig.stop();
});

test('a batch that fails is tried again smaller and later, and grows back', async () => {
  const rig = await agentRig();
  const sizes: number[] = [];
  let failing = 3;
  rig.server.instead.set('BatchNewX509SVID', (usual) => {
    const before = rig.server.issued.length;
    if (failing-- > 0) {
      sizes.push(-1);
      throw unreachable;
    }
    const result = usual();
    sizes.push(rig.server.issued.length - before);
    return result;
  });
  for (let entry = 0; entry < 16; entry++) rig.server.put({ id: `e${entry}` });
  await rig.start();
  await rig.clock.advance(10_000);
  assert.deepEqual(sizes, [-1, -1, -1, 2, 4, 8, 2]);
  assert.equal(rig.cache.svids.size, 16);
  rig.stop();
});

test('a server that says when to come again is not asked before, and one that says nothing is asked as always', async () => {
  const rig = await agentRig();
  const asked: number[] = [];
  let fault: Fault | undefined = new Fault('limit/exceeded', 'too many', { retryAfterMs: 4 * minute });
  rig.server.instead.set('BatchNewX509SVID', (usual) => {
    asked.push(rig.clock.now());
    if (fault !== undefined) throw fault;
    return usual();
  });
  rig.server.put({ id: 'a' });
  await rig.start();
  await rig.clock.advance(3.9 * minute);
  assert.equal(asked.length, 1);
  fault = new Fault('limit/exceeded', 'too many', { retryAfterMs: 0 });
  await rig.clock.advance(0.2 * minute);
  assert.equal(asked[1]! - asked[0]!, 4 * minute);
  // A hint of nothing leaves it to the agent's own backoff, which is not nothing.
  assert.ok(asked.length >= 3 && asked[2]! - asked[1]! >= 500, `${asked}`);
  fault = undefined;
  await rig.clock.advance(minute);
  assert.equal(rig.cache.svids.size, 1);
  rig.stop();
});

test('no batch is larger than five hundred', async () => {
  const rig = await agentRig();
  const sizes: number[] = [];
  rig.server.instead.set('BatchNewX509SVID', (usual) => {
    const before = rig.server.issued.length;
    const result = usual();
    sizes.push(rig.server.issued.length - before);
    return result;
  });
  for (let entry = 0; entry < 510; entry++) rig.server.put({ id: `e${entry}` });
  await rig.start();
  await rig.clock.advance(100);
  assert.deepEqual(sizes, [500, 10]);
  rig.stop();
});

test('one refused entry holds up no other, and is asked for again after a while', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  rig.server.instead.set('BatchNewX509SVID', (usual) => {
    const { results } = usual() as any;
    return { results: [{ status: { code: 5, message: 'entry not found or not authorized' } }, ...results.slice(1)] };
  });
  await rig.start();
  assert.deepEqual([...rig.cache.svids.keys()], ['b']);
  assert.match(rig.cache.refusal('a')!.message, /entry not found or not authorized/);
  rig.server.instead.clear();
  await rig.clock.advance(31_000);
  assert.deepEqual([...rig.cache.svids.keys()].sort(), ['a', 'b']);
  assert.equal(rig.cache.refusal('a'), undefined);
  rig.stop();
});

test('an entry that changed while it was refused an SVID is asked for at once', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.instead.set('BatchNewX509SVID', () => ({
    results: [{ status: { code: 5, message: 'entry not found or not authorized' } }],
  }));
  await rig.start();
  assert.ok(rig.cache.refusal('a'));
  rig.server.instead.clear();
  rig.server.put({ id: 'a', dnsNames: ['a.test'] });
  await rig.clock.advance(10);
  assert.equal(rig.cache.svids.get('a')?.revision, 1);
  rig.stop();
});

for (const [name, change, refusal] of [
  [
    'another ID',
    (rig: any, svid: any) => ({ ...svid, cert_chain: [rig.server.authority.issue({ id: id('/other') }).der] }),
    /issued an SVID for/,
  ],
  [
    'another key',
    (rig: any, svid: any) => ({ ...svid, cert_chain: [rig.server.authority.issue({ id: id('/a') }).der] }),
    /another key/,
  ],
  ['no certificate', (_rig: any, svid: any) => ({ ...svid, cert_chain: [] }), /without a certificate/],
  ['garbage', (_rig: any, svid: any) => ({ ...svid, cert_chain: [Buffer.from('30820101', 'hex')] }), /certificate/],
  [
    'seventeen certificates',
    (_rig: any, svid: any) => ({ ...svid, cert_chain: Array(17).fill(svid.cert_chain[0]) }),
    /chain of 17/,
  ],
] as const) {
  test(`an SVID that comes with ${name} is not taken`, async () => {
    const rig = await agentRig();
    rig.server.put({ id: 'a' });
    rig.server.instead.set('BatchNewX509SVID', (usual) => {
      const { results } = usual() as any;
      return { results: [{ ...results[0], svid: change(rig, results[0].svid) }] };
    });
    await rig.start();
    assert.equal(rig.cache.svids.size, 0);
    assert.match(rig.cache.refusal('a')!.message, refusal);
    rig.stop();
  });
}

test('SVIDs behind a tainted authority are replaced at once, and once', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const first = rig.cache.svids.get('a');
  const bundle = rig.server.bundles.get(domain)!;
  rig.server.putBundle({
    ...bundle,
    sequence: 2n,
    x509Authorities: bundle.x509Authorities.map((one) => ({ ...one, tainted: true })),
  });
  await rig.clock.advance(0);
  const second = rig.cache.svids.get('a');
  assert.notEqual(second, first);
  rig.server.put({ id: 'b' });
  await rig.clock.advance(0);
  assert.equal(rig.cache.svids.get('a'), second);
  // What signs is still the tainted one: there may be another a little later.
  await rig.clock.advance(60_000);
  assert.notEqual(rig.cache.svids.get('a'), second);
  rig.stop();
});

test('SVIDs that were kept on disk are replaced at once when their authority was tainted meanwhile, others are not', async () => {
  const before = await agentRig();
  before.server.put({ id: 'a' });
  await before.start();
  before.stop();
  const kept = before.cache.svids.get('a')!;
  for (const tainted of [true, false]) {
    const rig = await agentRig({
      svids: [kept],
      world: { entries: before.cache.entries, bundles: new Map(), position: 0n, logId: '' },
      before(server) {
        server.authority = before.server.authority;
        const bundle = before.server.bundles.get(domain)!;
        const x509Authorities = bundle.x509Authorities.map((one) => ({ ...one, tainted }));
        server.bundles.set(domain, { ...bundle, x509Authorities });
        server.entries.set('a', before.server.entries.get('a')!);
      },
    });
    await rig.start();
    const now = rig.cache.svids.get('a')!;
    assert.equal(now.pkcs8.equals(kept.pkcs8), !tainted);
    await rig.clock.advance(minute / 3);
    assert.equal(rig.cache.svids.get('a'), now, 'once');
    rig.stop();
  }
});

test('beyond its capacity the cache keeps what is followed, and drops what was used least lately', async () => {
  const rig = await agentRig({ capacity: 2 });
  const uid = (number: number) => [parseSelector(`unix:uid:${number}`)];
  for (const number of [1, 2, 3, 4]) rig.server.put({ id: `e${number}`, selectors: uid(number) });
  await rig.start();
  assert.deepEqual([...rig.cache.svids.keys()], ['e1', 'e2']);
  const ends = [4, 3, 1].map((number) => rig.cache.identities(uid(number)).follow(() => {}));
  await rig.clock.advance(0);
  assert.deepEqual([...rig.cache.svids.keys()].sort(), ['e1', 'e3', 'e4']);
  for (const end of ends) end();
  assert.equal(rig.cache.wanted.size, 2);
  rig.stop();
});

test('while the server is away everything kept is served; afterwards what is due is renewed', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const entry = rig.cache.entries.get('a')!;
  rig.server.outage = unreachable;
  await rig.clock.advance(59 * minute);
  assert.ok(rig.cache.svidFor(entry));
  assert.equal(rig.renewal.outage?.message, unreachable.message);
  await rig.clock.advance(2 * minute);
  assert.equal(rig.cache.svidFor(entry), undefined);
  rig.server.outage = undefined;
  await rig.clock.advance(10_000);
  assert.ok(rig.cache.svidFor(entry));
  assert.equal(rig.renewal.outage, undefined);
  rig.stop();
});

test('a clock set past every expiry is noticed: SVIDs are replaced at once, not when their timer ends', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const first = rig.cache.svids.get('a')!;
  rig.clock.set(rig.clock.now() + 120 * minute);
  await rig.clock.advance(2_000);
  assert.equal(rig.cache.svids.get('a'), first, 'the timer goes on as before');
  rig.renewal.clockSet();
  await rig.clock.advance(2_000);
  assert.ok(rig.cache.svids.get('a')!.notAfter > rig.clock.now());
  rig.stop();
});

test('SVIDs from when the clock was ahead, which nobody would believe yet, are replaced, and once only', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.clock.set(rig.clock.now() - 120 * minute);
  rig.renewal.clockSet();
  await rig.clock.advance(5_000);
  const { notBefore } = rig.cache.svids.get('a')!;
  assert.ok(notBefore <= rig.clock.now(), `valid from ${new Date(notBefore).toISOString()}`);
  const asked = rig.server.count('BatchNewX509SVID');
  rig.renewal.clockSet();
  await rig.clock.advance(5 * minute);
  assert.equal(rig.server.count('BatchNewX509SVID'), asked);
  rig.stop();
});
