/** Signing workers: what they give is what the first thread would have given, and what they cannot do it does. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { jwtKind } from '../../../server/authority/jwt.ts';
import { type X509Signer, x509Kind } from '../../../server/authority/x509.ts';
import { issueJwtSvid } from '../../../server/issue/jwt.ts';
import { mintProfile } from '../../../server/issue/mint.ts';
import type { FromWorker } from '../../../server/issue/signing-jobs.ts';
import { type SigningForTests, signingWorkers, startThread } from '../../../server/issue/signing-workers.ts';
import { issueX509Svid } from '../../../server/issue/x509.ts';
import { type ClassicKeyType, generateKey } from '../../../src/crypto/algorithms.ts';
import { isSignedBy, parseCertificate } from '../../../src/crypto/certificate.ts';
import { name } from '../../../src/crypto/certificate-writer.ts';
import { makeCsr, parseCsr } from '../../../src/crypto/csr.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { silentLog } from '../../../src/log.ts';
import { askThreadsToCollect } from '../../../src/run/collect.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { drivenClock } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { id, td, testServer, wireId } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1);
const day = 24 * 3_600_000;
const [ttl, requests] = [3_600_000, {}];
/** Randomness that is the same at each draw, so that only signatures differ. */
const steady = { ...systemRandom, bytes: (length: number) => Buffer.alloc(length, 7) };

async function signerOf(type: ClassicKeyType): Promise<X509Signer> {
  const kind = x509Kind(td, { country: ['US'], organization: ['SPIFFE'], commonName: '' }, day, systemRandom);
  const key = await memoryKeys().generate('ca', type);
  return kind.signer({ ...(await kind.make(key, now)), keyId: 'ca', tainted: false }, key);
}

function workersOf(t: TestContext, forTests: SigningForTests = {}, count = 2) {
  const clock = drivenClock(now);
  const lines: string[] = [];
  const log = {
    ...silentLog,
    error: (fields: object, event: string) => lines.push(`${event} ${JSON.stringify(fields)}`),
  };
  const ports = { clock, random: steady, log, forTests: { always: true, ...forTests } };
  const workers = signingWorkers(count, { trustDomain: td, requests }, ports);
  t.after(() => workers.close());
  return { workers, clock, lines };
}

/** A thread that answers nothing, or ends at its first job. */
const silent = (does: string) => () =>
  new Worker(`require('node:worker_threads').parentPort.on('message', () => { ${does} })`, { eval: true });

const asked = [
  { uri: id('/web') },
  { uri: id('/web'), dnsNames: ['a.example.org', 'b.example.org'], subject: name([['O', 'Other']]) },
];
for (const type of ['ec-p256', 'rsa-2048'] as const) {
  test(`a certificate by a ${type} key is the same from a worker but for what is drawn when it is signed`, async (t) => {
    const { workers } = workersOf(t);
    const signer = await signerOf(type);
    const plain = (der: Buffer): Buffer => (type === 'rsa-2048' ? der : parseCertificate(der).tbs);
    for (const wish of asked)
      for (const entry of [undefined, { id: id('/db'), dnsNames: ['x.example.org'] }]) {
        const csr = makeCsr(generateKey('ec-p256').privateKey, wish);
        const request = parseCsr(csr);
        const profile = entry ? { ...entry, spki: request.spki, ttl } : mintProfile(request, () => ttl, td);
        const here = await issueX509Svid(signer, profile, now, steady);
        const there = await workers.x509(signer, { csr, entry, ttl, now });
        assert.ok(there);
        assert.deepEqual(
          { ...there, chain: there.chain.map(plain) },
          { ...here, id: profile.id, chain: here.chain.map(plain) },
        );
        assert.ok(isSignedBy(parseCertificate(there.chain[0]!), signer.certificate));
      }
  });
}

test('a token by an RSA key is the same from a worker', async (t) => {
  const { workers } = workersOf(t);
  const kind = jwtKind(day, systemRandom);
  const key = await memoryKeys().generate('jwt', 'rsa-2048');
  const signer = kind.signer({ ...(await kind.make(key, now)), keyId: 'jwt', tainted: false }, key);
  const profile = { id: id('/web'), audience: ['db', 'a'], ttl, issuer: 'https://issuer', tokenId: 't' };
  assert.deepEqual(await workers.jwt(signer, profile, now), await issueJwtSvid(signer, profile, now));
  assert.equal(await workers.jwt(signer, { ...profile, audience: [] }, now), undefined);
  assert.equal(await workers.jwt(signer, profile, now + 2 * day), undefined, 'the key has expired');
});

test('a worker that is asked to collect has a smaller heap and issues as before', async (t) => {
  const threads: Worker[] = [];
  const newThread = (...given: Parameters<typeof startThread>): Worker => {
    const thread = startThread(...given);
    threads.push(thread);
    return thread;
  };
  const { workers } = workersOf(t, { newThread }, 1);
  const signer = await signerOf('ec-p256');
  const issue = () =>
    workers.x509(signer, {
      csr: makeCsr(generateKey('ec-p256').privateKey),
      entry: { id: id('/db'), dnsNames: [] },
      ttl,
      now,
    });
  assert.ok(await issue());
  const { total_heap_size: before } = await threads[0]!.getHeapStatistics();
  askThreadsToCollect();
  assert.ok(await issue());
  const { total_heap_size: after } = await threads[0]!.getHeapStatistics();
  assert.ok(after < before - (1 << 20), `${after} of ${before} bytes`);
});

test('what is wrong with a request is left to the first thread to say', async (t) => {
  const { workers } = workersOf(t);
  const signer = await signerOf('ec-p256');
  const ask = (csr: Buffer, at = now) => workers.x509(signer, { csr, entry: undefined, ttl, now: at });
  const good = makeCsr(generateKey('ec-p256').privateKey, { uri: id('/web') });
  const forged = Buffer.from(good);
  forged[forged.length - 1]! ^= 1;
  const others = [
    {},
    { uri: 'spiffe://other.org/web' },
    { uri: id('/spire/server') },
    { uri: id('/a'), dnsNames: ['-'] },
  ];
  for (const csr of [
    ...[Buffer.alloc(0), Buffer.from('x'), forged],
    ...others.map((wish) => makeCsr(generateKey('ec-p256').privateKey, wish)),
  ])
    assert.equal(await ask(csr), undefined);
  assert.equal(await ask(good, now + 2 * day), undefined, 'the authority has expired');
  assert.equal(ask(Buffer.alloc(16_385)), undefined, 'too long to be sent');
  assert.ok(await ask(good), 'and it still works');
});

test('a key that cannot be handed on signs here, and so does what finds no room', async (t) => {
  const { workers } = workersOf(t, { newThread: silent('') });
  const signer = await signerOf('ec-p256');
  const csr = makeCsr(generateKey('ec-p256').privateKey, { uri: id('/web') });
  const ask = (by: X509Signer) => workers.x509(by, { csr, entry: undefined, ttl, now });
  const { keyObject: _, ...remote } = signer.key;
  assert.equal(ask({ ...signer, key: remote }), undefined);
  const begun = Array.from({ length: 200 }, () => ask(signer));
  assert.equal(begun.filter((one) => one !== undefined).length, 2 * 64);
});

test('a call that is alone is answered here', async (t) => {
  const { workers } = workersOf(t, { always: false, newThread: silent('') });
  const signer = await signerOf('ec-p256');
  const csr = makeCsr(generateKey('ec-p256').privateKey, { uri: id('/web') });
  const ask = () => workers.x509(signer, { csr, entry: undefined, ttl, now }) !== undefined;
  assert.deepEqual([ask(), ask(), ask()], [false, true, true]);
  await new Promise(setImmediate);
  assert.equal(ask(), true, 'others are under way');
});

test('a worker that ends gives back what it had, and another comes, later each time it ends at once', async (t) => {
  const made: Worker[] = [];
  const newThread = () => {
    const worker = silent('')();
    made.push(worker);
    return worker;
  };
  const { workers, clock, lines } = workersOf(t, { newThread }, 1);
  const signer = await signerOf('ec-p256');
  const csr = makeCsr(generateKey('ec-p256').privateKey, { uri: id('/web') });
  for (const pause of [1_000, 2_000, 4_000]) {
    const owed = Array.from({ length: 10 }, () => workers.x509(signer, { csr, entry: undefined, ttl, now }));
    const worker = made.at(-1)!;
    const count = made.length;
    await worker.terminate();
    assert.deepEqual(await Promise.all(owed), Array(10).fill(undefined));
    assert.match(lines.at(-1)!, /signing worker ended.*"count":10/);
    assert.equal(workers.x509(signer, { csr, entry: undefined, ttl, now }), undefined, 'nobody is there');
    await clock.advance(pause - 1);
    assert.equal(made.length, count);
    await clock.advance(1);
    assert.equal(made.length, count + 1);
  }
});

test('a server whose workers crash at each job answers every call, and has recorded what it gave', async (t) => {
  const signing = { always: true, newThread: silent('process.exit(1)') };
  const server = await testServer(t, { flags: { workers: 2 }, signing });
  const svids = await Promise.all(Array.from({ length: 20 }, (_, n) => server.mint(`/w${n}`)));
  await server.clock.advance(100);
  for (const { leaf } of svids)
    assert.ok(await server.store.revocations.find(leaf.serial.toString(), server.clock.now()), leaf.serial.toString());
  assert.ok(server.lines.some((line) => line.includes('signing worker ended')));
});

test('the authority that is activated signs the next certificate, by a worker too', async (t) => {
  let answered = 0;
  const newThread: SigningForTests['newThread'] = (rules) =>
    startThread(rules).on('message', (outcomes: FromWorker) => {
      answered += outcomes.filter((outcome) => outcome !== undefined).length;
    });
  const server = await testServer(t, { flags: { workers: 1 }, signing: { always: true, newThread } });
  const seen = new Set<string>();
  for (let n = 0; n < 4; n++) {
    const { leaf } = await server.mint('/web');
    seen.add(leaf.authorityKeyId!.toString('hex'));
    const { prepared_authority: prepared } = await server.admin.call('localAuthority', 'PrepareX509Authority');
    const { authority_id } = prepared;
    await server.admin.call('localAuthority', 'ActivateX509Authority', { authority_id });
    const [{ leaf: next }] = await Promise.all([server.mint('/next'), server.mint('/other')]);
    assert.equal(next.authorityKeyId!.toString('hex'), authority_id);
    const jwt = await server.admin.call('svid', 'MintJWTSVID', { id: wireId('/web'), audience: ['a'], ttl: 60 });
    assert.ok(jwt.svid.token);
  }
  assert.equal(seen.size, 4);
  assert.equal(answered, 4 * 4);
});

test('workers beside keys that do not leave their store are refused at start', async (t) => {
  await assert.rejects(
    testServer(t, { flags: { workers: 2, 'keys-store': 'vault', 'keys-vault-address': 'https://vault:8200' } }),
    fault('config/invalid', /workers.*2 threads could not sign: keys of store vault do not leave it/s),
  );
});
