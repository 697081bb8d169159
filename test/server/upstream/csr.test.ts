/** Upstream `csr`: requests go out in a real file, and certificates come in by one, signed by a person that each test plays. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readServerOptions } from '../../../server/config.ts';
import { openStore } from '../../../server/store/open.ts';
import { csrUpstream } from '../../../server/upstream/csr.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { authorityId, parseCertificate } from '../../../src/crypto/certificate.ts';
import { makeCsr, parseCsr } from '../../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../../src/crypto/pem.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { trustDomainId } from '../../../src/spiffe/id.ts';
import { lintX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { type TestAuthority, testAuthority } from '../../support/ca.ts';
import { drivenClock, settle } from '../../support/clock.ts';
import { signed } from '../../support/fake-spire-server.ts';
import { fault } from '../../support/fault.ts';
import { td, testServer } from '../../support/server.ts';

const day = 24 * 3_600_000;
const signal = new AbortController().signal;
const pem = (...all: readonly Buffer[]) => all.map((der) => pemEncode('CERTIFICATE', der)).join('');

async function desk(options: { withBundle?: boolean } = {}) {
  const clock = drivenClock();
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const at = (file: string) => join(dir, file);
  const paths = {
    requestFile: at('request.pem'),
    certFile: at('cert.pem'),
    ...(options.withBundle && { bundleFile: at('roots.pem') }),
  };
  const newRoot = () => testAuthority({ now: clock.now(), root: { uris: [], notAfter: clock.now() + 30 * day } });
  let root: TestAuthority = newRoot();
  if (options.withBundle) await writeFile(at('roots.pem'), pem(root.der));
  const request = async () => {
    const [der] = pemDecode(await readFile(paths.requestFile, 'utf8'), 'CERTIFICATE REQUEST', 'request');
    const csr = parseCsr(der!);
    assert.ok(csr.verify());
    assert.deepEqual(csr.uris, [trustDomainId(td)]);
    return csr;
  };
  return {
    clock,
    at,
    paths,
    flags: {
      'upstream-authority': 'csr',
      'upstream-csr-request-file': paths.requestFile,
      'upstream-csr-cert-file': paths.certFile,
      ...(options.withBundle && { 'upstream-csr-bundle-file': at('roots.pem') }),
    },
    request,
    /** What the person does who signs. */
    async sign(spki?: Buffer): Promise<void> {
      const chain = signed(root, spki ?? (await request()).spki, clock);
      await writeFile(paths.certFile, pem(...chain, ...(options.withBundle ? [] : [root.der])));
    },
    async newRoot(): Promise<void> {
      root = newRoot();
      if (options.withBundle) await writeFile(at('roots.pem'), pem(root.der));
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}

async function opened(t: TestContext, options: { withBundle?: boolean } = {}) {
  const at = await desk(options);
  t.after(at.close);
  return at;
}

for (const withBundle of [false, true]) {
  test(`a request is signed by hand and taken${withBundle ? ', its root from a file of its own' : ', its root at the end'}`, async (t) => {
    const at = await opened(t, { withBundle });
    const upstream = csrUpstream(at.paths);
    const { privateKey, publicKey } = generateKey('ec-p256');
    const csr = makeCsr(privateKey, { uri: trustDomainId(td), authority: true });
    await assert.rejects(
      upstream.mint(csr, day, signal),
      fault('upstream/unavailable', /waits to be signed.*is not there yet$/),
    );
    const { mtimeMs } = await stat(at.paths.requestFile);
    assert.equal((await stat(at.paths.requestFile)).mode & 0o777, 0o644);
    // Asked again it leaves what may be on its way.
    await assert.rejects(upstream.mint(makeCsr(privateKey, { uri: trustDomainId(td) }), day, signal));
    assert.equal((await stat(at.paths.requestFile)).mtimeMs, mtimeMs);
    await at.sign();
    const { chain, roots } = await upstream.mint(csr, day, signal);
    assert.deepEqual(parseCertificate(chain[0]!).spki, publicKey.export({ format: 'der', type: 'spki' }));
    assert.equal(roots.length, 1);
    assert.deepEqual((await upstream.state!(signal)).x509Authorities, roots);
    // The next key: what lies there is of the one before.
    const next = makeCsr(generateKey('ec-p256').privateKey, { uri: trustDomainId(td) });
    await assert.rejects(
      upstream.mint(next, day, signal),
      fault('upstream/unavailable', /the one that is there is for another key and ends at 2030-/),
    );
  });
}

test('what is wrong in the files: a sentence each', async (t) => {
  const at = await opened(t);
  const upstream = csrUpstream(at.paths);
  const { privateKey } = generateKey('ec-p256');
  const csr = makeCsr(privateKey, { uri: trustDomainId(td) });
  const refusal = (says: RegExp) => assert.rejects(async () => upstream.mint(csr, day, signal), says);
  await refusal(/waits to be signed/);
  await writeFile(at.paths.certFile, 'nothing');
  await refusal(/signed certificate "\S+cert\.pem" is not PEM|not PEM/);
  await writeFile(at.paths.certFile, pem(Buffer.from('hello')));
  await refusal(/holds a certificate that cannot be read/);
  const root = testAuthority({ now: at.clock.now() });
  await writeFile(at.paths.certFile, pem(...signed(root, (await at.request()).spki, at.clock)));
  await refusal(/did not sign itself, so it is no root/);
  const nowhere = csrUpstream({ ...at.paths, requestFile: at.at('none/request.pem'), certFile: at.at('other.pem') });
  await assert.rejects(
    async () => nowhere.mint(csr, day, signal),
    fault('upstream/refused', /cannot be written to "\S+none\/request\.pem": ENOENT/),
  );
});

test('a first server waits for its signature over starts, with one key; then it runs, asks in time, and is signed again', async (t) => {
  const at = await opened(t);
  const { clock, flags } = at;
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const keys = memoryKeys();
  const wishes = { clock, flags: { ...flags, dataDir: at.at('data') }, store, keys };
  await assert.rejects(testServer(t, wishes), /waits to be signed/);
  const { spki } = await at.request();
  await assert.rejects(testServer(t, wishes), /waits to be signed/);
  assert.deepEqual((await at.request()).spki, spki, 'the key that asked asks again');
  assert.equal((await keys.list()).length, 1);
  assert.equal((await store.bundles.get(td))?.x509Authorities.length ?? 0, 0);
  await at.sign();
  const server = await testServer(t, wishes);
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const { active } = await state();
  assert.equal((await server.mint('/workload')).chain.length, 2);

  // Half its life is over: it asks for the next, says so each hour, and goes on.
  clock.jump(11 * 3_600_000);
  const waits = () => server.lines.filter((line) => line.includes('waits to be signed')).length;
  /** To the next look, which is over when no file is being read or written: each has a minute of this clock. */
  const look = async () => {
    await clock.advance(5_000);
    for (let still = 0; still < 3; ) {
      await server.admin.call('bundle', 'CountBundles');
      await settle(10);
      still = process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq')) ? 0 : still + 1;
    }
  };
  const pass = async (isSo: () => boolean | Promise<boolean>) => {
    for (let looks = 0; looks < 200 && !(await isSo()); looks++) await look();
    assert.ok(await isSo());
  };
  await pass(() => waits() === 1);
  for (let looks = 0; looks < 20; looks++) await look();
  assert.equal(waits(), 1);
  clock.jump(3_600_000);
  await pass(() => waits() === 2);
  assert.match(
    server.lines.findLast((line) => line.includes('waits to be signed'))!,
    /another key and ends at 2030-01-01T20:/,
  );
  assert.notDeepEqual((await at.request()).spki, spki);

  await server.restart();
  await at.newRoot();
  await at.sign();
  await pass(async () => (await state()).prepared !== null);
  const { prepared } = await state();
  assert.notEqual(prepared.upstream_authority_subject_key_id, active.upstream_authority_subject_key_id);
  await server.admin.call('localAuthority', 'ActivateX509Authority', { authority_id: prepared.authority_id });
  const { chain } = await server.mint('/workload');
  assert.equal(authorityId(parseCertificate(chain[1]!)), prepared.authority_id);
  assert.equal((await server.bundle()).x509Authorities.length, 2);
});

test('the commands of docs/upstream.md: a real OpenSSL makes the root and signs', async (t) => {
  const at = await opened(t);
  const clock = drivenClock(Date.now());
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const wishes = { clock, flags: { ...at.flags, dataDir: at.at('data') }, store, keys: memoryKeys() };
  await assert.rejects(testServer(t, wishes), /waits to be signed/);
  const page = await readFile(join(import.meta.dirname, '../../../docs/upstream.md'), 'utf8');
  const commands = page.split('\n').filter((line) => line.startsWith('openssl '));
  assert.equal(commands.length, 2);
  for (const command of [...commands, 'cat root.pem >> cert.pem'])
    execFileSync('sh', ['-c', command], { cwd: at.at('.'), stdio: 'pipe', timeout: 60_000 });
  // The certificate is valid from when OpenSSL made it, however long that took.
  clock.set(Date.now());
  const server = await testServer(t, wishes);
  const { chain } = await server.mint('/workload');
  assert.equal(chain.length, 2);
  assert.deepEqual(lintX509Svid(parseCertificate(chain[1]!)), []);
});

test('keys that end with the server are no use for it', async () => {
  const sources = {
    flags: {
      trustDomain: td,
      'keys-store': 'memory',
      'upstream-authority': 'csr',
      'upstream-csr-request-file': 'a',
      'upstream-csr-cert-file': 'b',
    },
  };
  await assert.rejects(readServerOptions(sources), /keys-store: is memory: its keys end with the server/);
});
