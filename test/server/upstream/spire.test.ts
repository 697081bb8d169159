/** Upstream `spire`: below a real server of ours, with the SVID that a real agent of ours gives. */
import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { spireUpstream } from '../../../server/upstream/spire.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { authorityId, parseCertificate } from '../../../src/crypto/certificate.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { Fault } from '../../../src/errors.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { bundleFromWire, jwtKeyFromWire } from '../../../src/wire/bundle.ts';
import { upstreamSuite } from '../../suites/upstream.ts';
import { testAuthority } from '../../support/ca.ts';
import { type DrivenClock, drivenClock } from '../../support/clock.ts';
import { type FakeSpireServer, fakeSpireServer, signed } from '../../support/fake-spire-server.ts';
import { fault } from '../../support/fault.ts';
import { type Pair, type PairOptions, startPair } from '../../support/pair.ts';
import { api, type TestServer, td, testServer } from '../../support/server.ts';

/** A server and its agent, which knows this process as a server below. */
async function above(context: TestContext, options: PairOptions = {}, entry: object = { downstream: true }) {
  const pair = await startPair(context, options);
  await pair.admin.createEntry('/nested', entry);
  const updates = pair.watchX509();
  await updates.next();
  await updates.close();
  const { host, port } = pair.server.address;
  const at = { server: { host, port }, workloadApiSocket: pair.agent.socket };
  return { pair, at, flags: flagsOf(at) };
}
const flagsOf = ({
  server,
  workloadApiSocket,
}: {
  server: { host: string; port: number };
  workloadApiSocket: string;
}) => ({
  'upstream-authority': 'spire',
  'upstream-spire-server': `${server.host}:${server.port}`,
  'upstream-spire-workload-api-socket': workloadApiSocket,
});
const bundleAbove = async (pair: Pair) => bundleFromWire(await pair.admin.call(api.bundle, 'GetBundle', {}));
const authority = (pair: Pair, method: string, request: object = {}) =>
  pair.admin.call(api.localAuthority, method, request);

upstreamSuite('spire, our server', async (context) => {
  const { pair, at, flags } = await above(context);
  const { clock } = pair;
  const upstream = spireUpstream(at, { clock, random: systemRandom, trustDomain: td });
  return {
    upstream,
    clock,
    flags,
    async rotate() {
      const { prepared_authority: prepared } = await authority(pair, 'PrepareX509Authority');
      await authority(pair, 'ActivateX509Authority', { authority_id: prepared.authority_id });
    },
    async close() {
      await upstream.close?.();
    },
  };
});

test('keys of tokens go up, and come down to the servers beside', async (t) => {
  const { pair, flags } = await above(t);
  const { clock } = pair;
  const [one, two] = [await testServer(t, { clock, flags }), await testServer(t, { clock, flags })];
  const kidOf = async (server: typeof one) => {
    const { active } = await server.admin.call('localAuthority', 'GetJWTAuthorityState');
    return active.authority_id as string;
  };
  const kids = [await kidOf(one), await kidOf(two)];
  const root = (await bundleAbove(pair)).jwtAuthorities.map(({ keyId }) => keyId);
  for (const kid of kids) assert.ok(root.includes(kid), 'the root has it');
  // The first was started before the second was there: it hears of its key at its next look.
  await clock.advance(5_000);
  for (let look = 0; look < 1_000 && (await one.bundle()).jwtAuthorities.length < 3; look++) await clock.advance(5_000);
  assert.deepEqual((await one.bundle()).jwtAuthorities.map(({ keyId }) => keyId).sort(), [...root].sort());
});

test('a key that a server below publishes goes on to the root before it is told to be published', async (t) => {
  const { pair, flags } = await above(t);
  const server = await testServer(t, { clock: pair.clock, flags });
  const agent = await server.attest();
  await server.entry('/below', agent.id, { downstream: true });
  const below = server.as(await server.mint('/below'));
  const key = (keyId: string) => ({
    public_key: generateKey('ec-p256').publicKey.export({ format: 'der', type: 'spki' }),
    key_id: keyId,
    expires_at: Math.floor(pair.clock.now() / 1000) + 3600,
  });
  const { jwt_authorities: given } = await below.call('bundle', 'PublishJWTAuthority', { jwt_authority: key('third') });
  const ids = (keys: readonly { key_id: string }[]) => keys.map(({ key_id }) => key_id).sort();
  const root = await bundleAbove(pair);
  assert.ok(root.jwtAuthorities.some(({ keyId }) => keyId === 'third'));
  assert.deepEqual(ids(given), root.jwtAuthorities.map(({ keyId }) => keyId).sort());
  // One that is known already with another key is refused here, and not sent on.
  const refusal = await below.refusal('bundle', 'PublishJWTAuthority', { jwt_authority: key('third') });
  assert.match(refusal.message, /in the bundle already, with another key/);

  await pair.stopServer();
  const away = await below.refusal('bundle', 'PublishJWTAuthority', { jwt_authority: key('fourth') });
  assert.equal(away.code, 'peer/unavailable');
  assert.match(away.message, /upstream authority/);
  assert.ok(!(await server.bundle()).jwtAuthorities.some(({ keyId }) => keyId === 'fourth'), 'not known here alone');
});

test('a root that is tainted above is left before the servers below hear of it, and forgotten when it is revoked', async (t) => {
  const { pair, flags } = await above(t);
  const { clock } = pair;
  const stored = await openStore({ url: 'sqlite::memory:' });
  t.after(() => stored.close());
  const rootIds = (bundle: Bundle, tainted: boolean) =>
    bundle.x509Authorities
      .filter((one) => one.tainted === tainted)
      .map(({ certificate }) => authorityId(parseCertificate(certificate)));
  /** What signed when each bundle was written that says of a root that it is tainted. */
  const signing: string[] = [];
  const bundles: typeof stored.bundles = {
    ...stored.bundles,
    async put(bundle, expect) {
      const [x509] = await stored.journal.list('x509');
      if (rootIds(bundle, true).length > 0) signing.push(JSON.parse(x509!.text).active.upstream.id);
      return stored.bundles.put(bundle, expect);
    },
  };
  const server = await testServer(t, { clock, flags, store: { ...stored, bundles } });
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const { active: first } = await state();
  const old = first.upstream_authority_subject_key_id;
  const { prepared_authority: next } = await authority(pair, 'PrepareX509Authority');
  await authority(pair, 'ActivateX509Authority', { authority_id: next.authority_id });
  await authority(pair, 'TaintX509Authority', { authority_id: old });

  for (let look = 0; look < 1_000 && !rootIds(await server.bundle(), true).includes(old); look++)
    await clock.advance(1_000);
  assert.deepEqual(rootIds(await server.bundle(), true), [old]);
  assert.ok(signing.length > 0);
  assert.deepEqual([...new Set(signing)], [next.authority_id]);
  const { active, old: left } = await state();
  assert.equal(active.upstream_authority_subject_key_id, next.authority_id);
  assert.equal(left.authority_id, first.authority_id);

  await authority(pair, 'RevokeX509Authority', { authority_id: old });
  for (let look = 0; look < 1_000 && (await state()).old; look++) await clock.advance(1_000);
  assert.equal((await state()).old, null);
  assert.deepEqual(rootIds(await server.bundle(), true), []);
  assert.deepEqual(rootIds(await server.bundle(), false), [next.authority_id]);
});

test('three deep: what the lowest signs leads to the root, with every certificate between', async (t) => {
  const { pair, flags } = await above(t);
  const { clock } = pair;
  const middle = await testServer(t, { clock, flags });
  const agent = await middle.attest();
  await middle.entry('/below', agent.id, { downstream: true });
  const below = middle.as(await middle.mint('/below'));
  const { privateKey } = generateKey('ec-p256');
  const csr = makeCsr(privateKey, { uri: `spiffe://${td}` });
  const { ca_cert_chain: chain } = await below.call('svid', 'NewDownstreamX509CA', { csr });
  const certificates = chain.map((der: Buffer) => parseCertificate(der));
  assert.equal(certificates.length, 2);
  assert.deepEqual(certificates[0].spki, createPublicKey(privateKey).export({ format: 'der', type: 'spki' }));
  const { active } = await middle.admin.call('localAuthority', 'GetX509AuthorityState');
  assert.equal(authorityId(certificates[1]), active.authority_id);
});

/** What keeps a server from its start, in the words that its operator reads. */
async function startRefused(t: TestContext, clock: DrivenClock, flags: object): Promise<string> {
  const store = await openStore({ url: 'sqlite::memory:' });
  const keys = memoryKeys();
  t.after(() => store.close());
  try {
    await testServer(t, { clock, store, keys, flags: flags as Record<string, unknown> });
  } catch (error) {
    // Nothing but the key that is to be asked for again.
    for (const { name, text } of [...(await store.journal.list('x509')), ...(await store.journal.list('jwt'))]) {
      assert.deepEqual(Object.keys(JSON.parse(text)), ['requested'], `half made: ${name} ${text}`);
    }
    const bundle = await store.bundles.get(td);
    assert.deepEqual(bundle?.x509Authorities ?? [], [], 'no root of it is trusted');
    return (error as Error).message;
  }
  throw new Error('it started');
}

test('what is wrong with a real server above keeps the start, each with its sentence', async (t) => {
  const { pair, at, flags } = await above(t);
  const { clock } = pair;
  const refused = (flags: object) => startRefused(t, clock, flags);

  const nowhere = flagsOf({ ...at, workloadApiSocket: join(at.workloadApiSocket, '..', 'none.sock') });
  assert.match(await refused(nowhere), /failed at signing our certificate authority: cannot reach "\S+none\.sock"/);
  assert.match(
    await refused({ ...flags, trustDomain: 'other.org' }),
    /gives "spiffe:\/\/example\.org\/nested", which is of another trust domain than "other\.org"/,
  );
  await pair.stopServer();
  assert.match(
    await refused(flags),
    /signing our certificate authority: cannot reach "127\.0\.0\.1:\d+": connect ECONNREFUSED/,
  );
});

test('an entry that is not marked downstream, or none at all: a sentence that says what to do', async (t) => {
  const plain = await above(t, {}, {});
  assert.match(
    await startRefused(t, plain.pair.clock, plain.flags),
    /server at 127\.0\.0\.1:\d+ lets "spiffe:\/\/example\.org\/nested" have no authority/,
  );
  const pair = await startPair(t);
  const { host, port } = pair.server.address;
  const flags = flagsOf({ server: { host, port }, workloadApiSocket: pair.agent.socket });
  assert.match(await startRefused(t, pair.clock, flags), /has no identity for this process/);
});

test('a first start waits a minute for its entry above, and ends with the sentence when there is none by then', async (t) => {
  const pair = await startPair(t);
  const { clock } = pair;
  const { host, port } = pair.server.address;
  const flags = flagsOf({ server: { host, port }, workloadApiSocket: pair.agent.socket });
  const start = () => {
    let over = false;
    const done = () => {
      over = true;
    };
    const lines: string[] = [];
    const starting = testServer(t, { clock, flags, upstreamPatience: 60_000, lines });
    starting.then(done, done);
    const told = () => lines.filter((line) => line.includes('the upstream authority is asked again'));
    return { starting, isOver: () => over, told };
  };
  const pass = async (isSo: () => boolean) => {
    for (let step = 0; step < 5_000 && !isSo(); step++) {
      await clock.advance(200);
      await bundleAbove(pair);
    }
    assert.ok(isSo());
  };
  const none = start();
  await pass(() => none.told().length > 0);
  const began = clock.now();
  await pass(none.isOver);
  await assert.rejects(none.starting, fault('upstream/unavailable', /has no identity for this process/));
  assert.ok(clock.now() - began > 50_000);

  const waiting = start();
  await pass(() => waiting.told().length > 0);
  for (let step = 0; step < 20; step++) await clock.advance(500);
  assert.ok(!waiting.isOver());
  await pair.admin.createEntry('/nested', { downstream: true });
  const server = await pair.pass(waiting.starting, 200);
  assert.equal((await server.mint('/workload')).chain.length, 2);
  const told = waiting.told();
  assert.equal(told.length, 1);
  assert.match(told[0]!, /has no identity for this process.*Create an entry/);
});

test('what waiting does not mend ends a first start at once', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  fake.sign = () => [];
  const refused = testServer(t, { clock, flags: fake.flags, upstreamPatience: 60_000 });
  await assert.rejects(refused, fault('upstream/refused', /a chain of 0 certificates/));
});

test('a real server above whose own path length allows nobody below it', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const now = Date.now();
  const root = testAuthority({ now, root: { uris: [], pathLength: 1, notAfter: now + 30 * 24 * 3_600_000 } });
  const files = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  await writeFile(files.cert, pemEncode('CERTIFICATE', root.der));
  await writeFile(files.key, pemEncode('PRIVATE KEY', root.key.exportPkcs8()), { mode: 0o600 });
  const server = {
    'upstream-authority': 'disk',
    'upstream-disk-cert-file': files.cert,
    'upstream-disk-key-file': files.key,
  };
  const { pair, flags } = await above(t, { server });
  assert.match(
    await startRefused(t, pair.clock, flags),
    /refuses: the path length above this server allows no authority below it/,
  );
});

/** What an upstream may give that is none of use, and the sentence for it. */
const wrongs: readonly [what: string, spoil: (fake: FakeSpireServer, clock: DrivenClock) => void, says: RegExp][] = [
  [
    'a chain that leads to another root',
    (fake, clock) => {
      const other = testAuthority({ now: clock.now() });
      fake.sign = (spki) => signed(other, spki, clock);
    },
    /gave a chain that does not verify/,
  ],
  [
    'a chain that lacks its middle',
    (fake, clock) => {
      const between = fake.root.intermediate();
      fake.sign = (spki) => signed(between, spki, clock).slice(0, 1);
    },
    /gave a chain that does not verify/,
  ],
  [
    'a certificate that has expired',
    (fake, clock) => {
      fake.sign = (spki) => signed(fake.root, spki, clock, { notAfter: clock.now() - 1000 });
    },
    /gave a chain that does not verify: .*expired/,
  ],
  [
    'a root that has expired',
    (fake, clock) => {
      const old = testAuthority({ now: clock.now(), root: { notAfter: clock.now() - 5_000 } });
      fake.sign = (spki) => signed(old, spki, clock);
      fake.tells = () => fake.root.bundle({ x509Authorities: [{ certificate: old.der, tainted: false }] });
    },
    /gave a chain that does not verify: .*expired/,
  ],
  [
    'a path length that forbids us',
    (fake, clock) => {
      const between = fake.root.intermediate({ pathLength: 0 });
      fake.sign = (spki) => signed(between, spki, clock);
    },
    /gave a chain whose path length allows no certificate authority of ours/,
  ],
  [
    'a certificate of another trust domain',
    (fake, clock) => {
      fake.sign = (spki) => signed(fake.root, spki, clock, { id: 'spiffe://other.org' });
    },
    /gave a certificate for "spiffe:\/\/other\.org"; "spiffe:\/\/example\.org" was asked for/,
  ],
  [
    'a bundle of another trust domain',
    (fake) => {
      fake.tells = () => fake.root.bundle({ trustDomain: parseTrustDomain('other.org') });
    },
    /gave a bundle of trust domain "other\.org", not of "example\.org"/,
  ],
  [
    'a certificate for another key',
    (fake, clock) => {
      fake.sign = () => signed(fake.root, testAuthority({ now: clock.now() }).key.publicKey, clock);
    },
    /gave a certificate for another key than the one that asked/,
  ],
  [
    'a leaf',
    (fake, clock) => {
      fake.sign = (spki) => signed(fake.root, spki, clock, { ca: false });
    },
    /gave a certificate that is no certificate authority/,
  ],
  [
    'roots of which all are tainted',
    (fake) => {
      fake.tells = () => fake.root.bundle({ x509Authorities: [{ certificate: fake.root.der, tainted: true }] });
    },
    /gave only root certificates that are tainted/,
  ],
  [
    'nothing',
    (fake) => {
      fake.sign = () => [];
    },
    /gave a chain of 0 certificates/,
  ],
  [
    'bytes',
    (fake) => {
      fake.sign = () => [Buffer.from('hello')];
    },
    /gave a chain that cannot be read/,
  ],
];

test('what a (fake) server above gives that cannot be used keeps the start, each with its sentence', async (t) => {
  for (const [what, spoil, says] of wrongs) {
    await t.test(what, async (t) => {
      const clock = drivenClock();
      const fake = await fakeSpireServer(t, clock);
      spoil(fake, clock);
      assert.match(await startRefused(t, clock, fake.flags), says);
    });
  }
});

test('the same while the server runs: it goes on, says so, and keeps nothing half made', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const { sign, tells } = fake;
  const server = await testServer(t, { clock, flags: fake.flags });
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const before = await state();
  const keys = (await server.keys.list()).length;
  for (const [what, spoil, says] of wrongs) {
    await t.test(what, async () => {
      spoil(fake, clock);
      const roots = (await server.bundle()).x509Authorities.length;
      assert.match((await server.admin.refusal('localAuthority', 'PrepareX509Authority')).message, says);
      assert.deepEqual(await state(), before);
      assert.equal((await server.bundle()).x509Authorities.length, roots);
      Object.assign(fake, { sign, tells });
      // After a failure it is left alone for a while.
      clock.jump(120_000);
    });
  }
  assert.equal((await server.keys.list()).length, keys + 1, 'one key waits, however often it was asked for');
  assert.equal(new Set(fake.asked.slice(1).map(String)).size, 1);
  assert.ok((await server.mint('/workload')).chain.length > 0);

  // The key that waits survives a restart, and is the one that is signed at last.
  await server.restart();
  assert.equal((await server.keys.list()).length, keys + 1);
  const waiting = fake.asked.at(-1)!;
  await server.admin.call('localAuthority', 'PrepareX509Authority');
  assert.deepEqual(fake.asked.at(-1), waiting);
  assert.notEqual((await state()).prepared, null);
});

test('away while the server runs: it starts again all the same, publishes no key that went nowhere, and says so in /ready', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const server = await testServer(t, { clock, flags: { ...fake.flags, 'health-listen': '127.0.0.1:0' } });
  const ready = async () => {
    const { host, port } = server.running.health!;
    return (await (await fetch(`http://${host}:${port}/ready`)).json()) as { status: string; checks: object };
  };
  const before = await ready();
  assert.equal(before.status, 'ok');
  assert.equal((before.checks as { upstream: string }).upstream, 'ok');
  fake.refuses = new Fault('peer/unavailable', 'down for a while');
  await server.restart();
  assert.ok((await server.mint('/workload')).chain.length > 0);
  const { active } = await server.admin.call('localAuthority', 'GetJWTAuthorityState');
  const refused = await server.admin.refusal('localAuthority', 'PrepareJWTAuthority');
  assert.match(refused.message, /upstream authority/);
  // In the journal, where it waits, and in no bundle.
  assert.deepEqual(
    (await server.bundle()).jwtAuthorities.map(({ keyId }) => keyId).filter((kid) => kid !== fake.root.jwtKeyId),
    [active.authority_id],
  );
  const told = await ready();
  assert.equal(told.status, 'ok', 'it takes no server out of service');
  assert.match((told.checks as { upstream: string }).upstream, /upstream authority/);

  fake.refuses = undefined;
  const { prepared } = await server.admin.call('localAuthority', 'GetJWTAuthorityState');
  const isPublished = () => fake.published.some(({ key_id }) => key_id === prepared.authority_id);
  for (let look = 0; look < 1_000 && !isPublished(); look++) {
    await clock.advance(5_000);
    await server.bundle();
  }
  assert.ok(isPublished());
  for (let look = 0; look < 1_000 && (await server.bundle()).jwtAuthorities.length < 3; look++)
    await clock.advance(1_000);
  assert.equal((await server.bundle()).jwtAuthorities.length, 3);
  const upstream = async () => ((await ready()).checks as { upstream: string }).upstream;
  for (let look = 0; look < 1_000 && (await upstream()) !== 'ok'; look++) await clock.advance(5_000);
  assert.equal(await upstream(), 'ok');
});

test('without its upstream again: the server signs its own root, and lets it sign when it is known', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const server = await testServer(t, { clock, flags: fake.flags });
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const { active: under } = await state();
  await server.restart({});
  assert.equal((await state()).active.authority_id, under.authority_id, 'at first it goes on');
  let { active, old } = await state();
  for (let look = 0; look < 1_000 && active.authority_id === under.authority_id; look++) {
    await clock.advance(5_000);
    ({ active, old } = await state());
  }
  assert.equal(active.upstream_authority_subject_key_id, '');
  assert.equal(old.authority_id, under.authority_id);
  const { chain } = await server.mint('/workload');
  assert.equal(chain.length, 1, 'it is a root itself');
  const roots = (await server.bundle()).x509Authorities.map(({ certificate }) =>
    authorityId(parseCertificate(certificate)),
  );
  assert.ok(roots.includes(active.authority_id));
  assert.ok(roots.includes(under.upstream_authority_subject_key_id), 'what was signed before is still trusted');
});

test('among several identities of this process the one that may is found, and kept to', async (t) => {
  const { pair, flags } = await above(t);
  for (const name of ['/a', '/b', '/z']) await pair.admin.createEntry(name);
  const updates = pair.watchX509();
  while ((await updates.next()).length < 4);
  await updates.close();
  const server = await testServer(t, { clock: pair.clock, flags });
  await server.admin.call('localAuthority', 'PrepareX509Authority');
  await server.admin.call('localAuthority', 'PrepareJWTAuthority');
});

test('a root that cannot be left yet is not said to be tainted yet: agents would ask anew for what hangs on it still', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const server = await testServer(t, { clock, flags: fake.flags });
  const next = testAuthority({ now: clock.now() });
  const { jwtAuthorities } = fake.root.bundle();
  fake.tells = () =>
    fake.root.bundle({
      x509Authorities: [
        { certificate: fake.root.der, tainted: true },
        { certificate: next.der, tainted: false },
      ],
      jwtAuthorities,
    });
  fake.sign = () => {
    throw new Fault('peer/unavailable', 'too busy to sign');
  };
  const taints = async () => (await server.bundle()).x509Authorities.map(({ tainted }) => tainted);
  const pass = async (isSo: (taints: boolean[]) => boolean) => {
    for (let look = 0; look < 1_000 && !isSo(await taints()); look++) await clock.advance(1_000);
  };
  await pass(({ length }) => length === 2);
  const isTold = (): boolean => /too busy to sign/.test(server.lines.join(''));
  await pass(isTold);
  for (let look = 0; look < 10; look++) await clock.advance(5_000);
  assert.deepEqual(await taints(), [false, false]);
  assert.ok(isTold());

  fake.sign = (spki) => signed(next, spki, clock);
  await pass((all) => all.includes(true));
  assert.deepEqual(await taints(), [true, false]);
  const { active } = await server.admin.call('localAuthority', 'GetX509AuthorityState');
  assert.equal(active.upstream_authority_subject_key_id, authorityId(next.certificate));
});

test('what was tainted and revoked above while this server was away is left and taken out when it is back; its own root is not', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const server = await testServer(t, { clock });
  const own = (await server.bundle()).x509Authorities[0]!.certificate;
  const move = async (isSo: () => Promise<boolean>) => {
    for (let look = 0; look < 1_000 && !(await isSo()); look++) await clock.advance(5_000);
    assert.ok(await isSo());
  };
  const roots = async () =>
    (await server.bundle()).x509Authorities.map(({ certificate }) => certificate.toString('hex'));
  const kids = async () => (await server.bundle()).jwtAuthorities.map(({ keyId }) => keyId);
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const published = () => fake.published.map((key) => jwtKeyFromWire({ ...key, tainted: false }, td));
  fake.tells = () => fake.root.bundle({ jwtAuthorities: [...fake.root.bundle().jwtAuthorities, ...published()] });
  await server.restart(fake.flags);
  await move(async () => (await state()).active.upstream_authority_subject_key_id !== '');
  await move(async () => (await kids()).includes(fake.root.jwtKeyId));
  assert.deepEqual(
    await roots(),
    [own, fake.root.der].map((der) => der.toString('hex')),
  );

  await server.stop();
  const next = testAuthority({ now: clock.now() });
  fake.tells = () =>
    fake.root.bundle({
      x509Authorities: [{ certificate: next.der, tainted: false }],
      jwtAuthorities: next.bundle().jwtAuthorities,
    });
  fake.sign = (spki) => signed(next, spki, clock);
  await server.restart(fake.flags);
  await move(async () => !(await roots()).includes(fake.root.der.toString('hex')));
  assert.deepEqual(
    await roots(),
    [own, next.der].map((der) => der.toString('hex')),
  );
  assert.equal((await state()).active.upstream_authority_subject_key_id, authorityId(next.certificate));
  assert.ok((await kids()).includes(next.jwtKeyId));
  assert.ok(!(await kids()).includes(fake.root.jwtKeyId));
  const { active } = await server.admin.call('localAuthority', 'GetJWTAuthorityState');
  assert.ok((await kids()).includes(active.authority_id), 'its own key stays');
});

/** Moves time on until something is so. Between two steps a call goes through the server, so that what it does can end. */
async function moved(server: TestServer, clock: DrivenClock, isSo: () => Promise<boolean>): Promise<void> {
  for (let step = 0; step < 1_000; step++) {
    if (await isSo()) return;
    await clock.advance(5_000);
    await server.bundle();
  }
  assert.fail('it never was so');
}

test('a key of its own that was tainted or revoked above signs no more: another one does, which those above have first', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const tainted = new Set<string>();
  const held = () =>
    fake.published
      .filter(({ key_id }) => !fake.revoked.has(key_id))
      .map((key) => ({ ...jwtKeyFromWire({ ...key, tainted: false }, td), tainted: tainted.has(key.key_id) }));
  let looks = 0;
  fake.tells = () => {
    looks++;
    return fake.root.bundle({ jwtAuthorities: [...fake.root.bundle().jwtAuthorities, ...held()] });
  };
  const server = await testServer(t, { clock, flags: fake.flags });
  const state = () => server.admin.call('localAuthority', 'GetJWTAuthorityState');
  const kids = async () => (await server.bundle()).jwtAuthorities.map(({ keyId }) => keyId);
  const tokenKid = async () => {
    const request = { id: { trust_domain: td, path: '/w' }, audience: ['a'] };
    const { svid } = await server.admin.call('svid', 'MintJWTSVID', request);
    return JSON.parse(Buffer.from(svid.token.split('.')[0], 'base64url').toString()).kid;
  };
  const look = (isSo: () => Promise<boolean>) => moved(server, clock, isSo);
  // What is above was seen here before it goes.
  await look(async () => looks > 2);

  const first = (await state()).active.authority_id;
  tainted.add(first);
  await look(async () => (await state()).active.authority_id !== first);
  const second = (await state()).active.authority_id;
  assert.equal(await tokenKid(), second);
  assert.ok(fake.published.some(({ key_id }) => key_id === second));
  const isTainted = async () => (await server.bundle()).jwtAuthorities.find(({ keyId }) => keyId === first)?.tainted;
  assert.equal(await isTainted(), true);
  await server.restart();
  assert.equal(await isTainted(), true);
  fake.revoked.add(first);
  await look(async () => !(await kids()).includes(first));

  // Revoked at once, with the one that is to be next: both go, and what replaces them is a third.
  await server.admin.call('localAuthority', 'PrepareJWTAuthority');
  const next = (await state()).prepared.authority_id;
  const before = looks;
  await look(async () => looks > before + 2);
  for (const kid of [second, next]) fake.revoked.add(kid);
  await look(async () => !(await kids()).some((kid) => kid === second || kid === next));
  const { active, old } = await state();
  assert.ok(![first, second, next].includes(active.authority_id));
  assert.equal(old, null, 'what was revoked is forgotten');
  assert.equal(await tokenKid(), active.authority_id);
  const end = looks;
  await look(async () => looks > end + 3);
  assert.equal((await state()).active.authority_id, active.authority_id, 'and that is the end of it');
});

test('a key of its own that one look does not find, and one that those above never had, go on signing', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const server = await testServer(t, { clock, flags: fake.flags });
  const state = () => server.admin.call('localAuthority', 'GetJWTAuthorityState');
  const { active } = await state();
  let looks = 0;
  // It tells nobody of what it was given.
  fake.tells = () => {
    looks++;
    return fake.root.bundle();
  };
  await moved(server, clock, async () => looks > 4);
  assert.equal((await state()).active.authority_id, active.authority_id);

  const all = () => [...fake.root.bundle().jwtAuthorities, ...fake.published.map((key) => jwtKeyFromWire(key, td))];
  const whole = () => fake.root.bundle({ jwtAuthorities: all() });
  // Each second look comes to one that is behind.
  fake.tells = () => (looks++ % 2 === 0 ? whole() : fake.root.bundle());
  await moved(server, clock, async () => looks > 16);
  assert.equal((await state()).active.authority_id, active.authority_id);
});

test('while those above are away a key that was revoked there goes on, and is replaced when they are back', async (t) => {
  const clock = drivenClock();
  const fake = await fakeSpireServer(t, clock);
  const held = () =>
    fake.published
      .filter(({ key_id }) => !fake.revoked.has(key_id))
      .map((key) => jwtKeyFromWire({ ...key, tainted: false }, td));
  let looks = 0;
  fake.tells = () => {
    looks++;
    return fake.root.bundle({ jwtAuthorities: held() });
  };
  const server = await testServer(t, { clock, flags: fake.flags });
  const active = async () => (await server.admin.call('localAuthority', 'GetJWTAuthorityState')).active.authority_id;
  const first = await active();
  await moved(server, clock, async () => looks > 2);
  await server.stop();
  fake.revoked.add(first);
  await server.restart();
  await moved(server, clock, async () => (await active()) !== first);
  assert.ok(!(await server.bundle()).jwtAuthorities.some(({ keyId }) => keyId === first));
});

test('WIT keys go up to the root too, and come down; where those above take none, they are known below alone', async (t) => {
  const wit = { 'wit-svids-enabled': true };
  const { pair, flags } = await above(t, { server: wit });
  const server = await testServer(t, { clock: pair.clock, flags: { ...flags, ...wit } });
  const { active } = await server.admin.call('localAuthority', 'GetWITAuthorityState');
  const kids = (keys: Bundle) => keys.witAuthorities.map(({ keyId }) => keyId).sort();
  assert.equal(kids(await bundleAbove(pair)).length, 2);
  assert.ok(kids(await bundleAbove(pair)).includes(active.authority_id));
  assert.deepEqual(kids(await server.bundle()), kids(await bundleAbove(pair)));

  const agent = await server.attest();
  await server.entry('/below', agent.id, { downstream: true });
  const below = server.as(await server.mint('/below'));
  const key = {
    public_key: generateKey('ec-p256').publicKey.export({ format: 'der', type: 'spki' }),
    key_id: 'third',
    expires_at: Math.floor(pair.clock.now() / 1000) + 3600,
  };
  const { wit_authorities: all } = await below.call('bundle', 'PublishWITAuthority', { wit_authority: key });
  assert.equal(all.length, 3);
  assert.ok(kids(await bundleAbove(pair)).includes('third'));
  const other = await below.refusal('bundle', 'PublishJWTAuthority', { jwt_authority: key });
  assert.match(other.message, /"third" is the ID of a WIT authority in the bundle/);

  const plain = await above(t);
  const alone = await testServer(t, { clock: plain.pair.clock, flags: { ...plain.flags, ...wit } });
  assert.equal(kids(await alone.bundle()).length, 1);
  assert.equal(kids(await bundleAbove(plain.pair)).length, 0);
  assert.match(alone.lines.join(''), /upstream authority takes no such keys/);
  assert.ok((await alone.bundle()).jwtAuthorities.length === 2, 'its other keys went up');
  for (let look = 0; look < 4; look++) await plain.pair.pass(plain.pair.clock.advance(5_000), 0);
  assert.equal(kids(await alone.bundle()).length, 1);
});
