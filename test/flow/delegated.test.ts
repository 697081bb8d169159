/** The Delegated Identity API on a real agent's admin socket: who may ask, for whom, and what is never handed out. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { type Fault, Status } from '../../src/errors.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { type Pair, startPair } from '../support/pair.ts';

const service = 'spire.api.agent.delegatedidentity.v1.DelegatedIdentity';
const uid = `${process.getuid?.()}`;
const elsewhere = { type: 'unix', value: 'uid:4242' };
const other = { selectors: [elsewhere] };
const delegate = 'spiffe://example.org/delegate';
const named = (status: number, text: RegExp) => (fault: Fault) => fault.status === status && text.test(fault.message);

async function pairWith(test: TestContext, delegates: readonly string[] = [delegate]) {
  const pair = await startPair(test, { agent: { authorizedDelegates: delegates } });
  const channel = connectUnix(pair.agent.adminSocket);
  test.after(() => channel.close());
  return {
    pair,
    fetch: (request: object) => channel.unary(service, 'FetchJWTSVIDs', { audience: ['db'], ...request }),
    open: (method: string, request: object = {}) => channel.stream(service, method, request),
  };
}

/** Until the agent has heard of an entry that the server has. */
async function known(pair: Pair, count: number): Promise<void> {
  while (pair.agent.status().entries < count) await new Promise((resolve) => setImmediate(resolve));
}

const ids = (message: any): string[] => message.x509_svids.map(({ x509_svid }: any) => x509_svid.id.path);

async function sleeper(test: TestContext): Promise<ChildProcess & { pid: number }> {
  const child = spawn('sleep', ['600']);
  test.after(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  return child as ChildProcess & { pid: number };
}

test('Nomad empty policy: nobody is a delegate unless the configuration says so, and an identity of another name is not enough', async (t) => {
  for (const delegates of [[], ['spiffe://example.org/somebody-else']]) {
    const { pair, fetch, open } = await pairWith(t, delegates);
    await assert.rejects(fetch(other), named(Status.PERMISSION_DENIED, /no identity issued/));
    await pair.admin.createEntry('/delegate');
    await pair.admin.createEntry('/target', other);
    const refused = named(Status.PERMISSION_DENIED, /not configured as an authorized delegate/);
    await assert.rejects(fetch(other), refused);
    for (const method of ['SubscribeToX509SVIDs', 'SubscribeToX509Bundles', 'SubscribeToJWTBundles'])
      await assert.rejects(open(method, method === 'SubscribeToX509SVIDs' ? other : {}).next(), refused);
  }
});

test('a delegate gets the identities behind selectors, sees them come, renewed and go, and its own right end', async (t) => {
  const { pair, open, fetch } = await pairWith(t);
  const right = await pair.admin.createEntry('/delegate');
  const stream = open('SubscribeToX509SVIDs', other);
  assert.deepEqual((await stream.next()).value.x509_svids, []);

  const target = await pair.admin.createEntry('/target', { ...other, hint: 'inner' });
  const { value: first } = await stream.next();
  assert.deepEqual(ids(first), ['/target']);
  const [{ x509_svid, x509_svid_key }] = first.x509_svids;
  const leaf = parseCertificate(x509_svid.cert_chain[0]);
  assert.deepEqual(leaf.uris, ['spiffe://example.org/target']);
  assert.equal(Number(x509_svid.expires_at), Math.floor(leaf.notAfter / 1000));
  assert.equal(x509_svid.hint, 'inner');
  assert.ok(x509_svid_key.length > 0);

  const { svids } = await fetch(other);
  assert.equal(svids.length, 1);
  assert.equal(svids[0].id.path, '/target');
  assert.ok(Number(svids[0].expires_at) > Number(svids[0].issued_at));

  const renewed = await pair.pass(stream.next(), 60_000);
  assert.notEqual(parseCertificate(renewed.value.x509_svids[0].x509_svid.cert_chain[0]).serial, leaf.serial);

  const remove = (id: string) => pair.admin.call('spire.api.server.entry.v1.Entry', 'BatchDeleteEntry', { ids: [id] });
  await remove(target);
  assert.deepEqual((await stream.next()).value.x509_svids, []);
  await remove(right);
  await assert.rejects(stream.next(), named(Status.PERMISSION_DENIED, /not configured as an authorized delegate/));
});

test('SPIRE 1.15.2 delegated: identities of admin and downstream entries are never handed out, by selectors or by pid, X.509 or JWT', async (t) => {
  const { pair, fetch, open } = await pairWith(t);
  await pair.admin.createEntry('/delegate');
  await pair.admin.createEntry('/admin', { ...other, admin: true });
  await pair.admin.createEntry('/downstream', { ...other, downstream: true });
  await known(pair, 4);
  const stream = open('SubscribeToX509SVIDs', other);
  assert.deepEqual((await stream.next()).value.x509_svids, []);
  await assert.rejects(fetch(other), named(Status.PERMISSION_DENIED, /no identity issued/));
  await pair.admin.createEntry('/plain', other);
  assert.deepEqual(ids((await stream.next()).value), ['/plain']);
  assert.deepEqual(
    (await fetch(other)).svids.map(({ id }: any) => id.path),
    ['/plain'],
  );

  await pair.admin.createEntry('/mine-too', { admin: true, selectors: [{ type: 'unix', value: `uid:${uid}` }] });
  await known(pair, 6);
  const child = await sleeper(t);
  assert.deepEqual(
    (await fetch({ pid: child.pid })).svids.map(({ id }: any) => id.path),
    ['/delegate'],
  );
});

test('a pid is attested as the process it is now; when that ends, so does the stream, and a dead one is not found', async (t) => {
  const { pair, fetch, open } = await pairWith(t);
  await pair.admin.createEntry('/delegate');
  const child = await sleeper(t);
  const stream = open('SubscribeToX509SVIDs', { pid: child.pid });
  assert.deepEqual(ids((await stream.next()).value), ['/delegate']);
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  await assert.rejects(pair.pass(stream.next()), named(Status.NOT_FOUND, /process \d+ is gone/));
  await assert.rejects(fetch({ pid: child.pid }), named(Status.NOT_FOUND, /there is no process \d+/));
});

test('what names nobody, or too much, is refused with what was expected', async (t) => {
  const { pair, fetch, open } = await pairWith(t);
  await pair.admin.createEntry('/delegate');
  const many = Array.from({ length: 10_000 }, (_, index) => ({ type: 'unix', value: `gid:${index}` }));
  const cases: readonly [object, RegExp][] = [
    [{}, /either selectors or non-zero PID/],
    [{ selectors: [], pid: 0 }, /either selectors or non-zero PID/],
    [{ ...other, pid: process.pid }, /but not both/],
    [{ pid: -1 }, /PID -1 is not valid/],
    [{ selectors: [{ type: '', value: 'x' }] }, /selector/],
    [{ selectors: [{ type: 'unix', value: '' }] }, /selector/],
    [{ selectors: many }, /10000 selectors are too many: at most 1000/],
  ];
  for (const [request, text] of cases) {
    await assert.rejects(fetch(request), named(Status.INVALID_ARGUMENT, text));
    await assert.rejects(open('SubscribeToX509SVIDs', request).next(), named(Status.INVALID_ARGUMENT, text));
  }
  await assert.rejects(fetch({ ...other, audience: [] }), named(Status.INVALID_ARGUMENT, /audience is empty/));
});

test('bundles are all that the agent holds, and one that is gone is gone from the next message', async (t) => {
  const { pair, open } = await pairWith(t);
  await pair.admin.createEntry('/delegate');
  const streams = [open('SubscribeToX509Bundles'), open('SubscribeToJWTBundles')];
  const keys = async () =>
    Promise.all(streams.map(async (stream) => Object.keys(Object.values<any>((await stream.next()).value)[0]).sort()));
  const own = ['spiffe://example.org'];
  const both = [...own, 'spiffe://other.org'];
  assert.deepEqual(await keys(), [own, own]);

  const { x509_authorities } = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  const bundle = { trust_domain: 'other.org', x509_authorities };
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchSetFederatedBundle', { bundle: [bundle] });
  await pair.admin.createEntry('/federated', { ...other, federates_with: ['other.org'] });
  assert.deepEqual(await keys(), [both, both]);
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchDeleteFederatedBundle', {
    trust_domains: ['other.org'],
    mode: 'DISSOCIATE',
  });
  assert.deepEqual(await keys(), [own, own]);
});
