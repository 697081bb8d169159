import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pemEncode } from '../../../src/crypto/pem.ts';
import type { VaultKeysOptions } from '../../../src/keys/options.ts';
import { vaultKeys } from '../../../src/keys/vault.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import { type FakeTransit, type FakeTransitWishes, fakeTransit } from '../../support/fake-transit.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts, type TestKeyPorts } from '../../support/key-ports.ts';
import { calm, passHours } from '../../support/key-stores.ts';

const owner = (server = 'one') => ({ trustDomain: 'example.org', server });
const appRole = { login: 'approle', roleId: 'the-role', secretId: 'the-secret' } as const;

keyStoreSuite('vault (a fake Transit over HTTP)', { exportable: false }, async () => {
  const clock = drivenClock();
  const vault = await fakeTransit({ clock });
  const options: VaultKeysOptions = { address: vault.address, transitPath: 'transit', ...appRole };
  const opened: { close?(): Promise<void> }[] = [];
  const open = async (server?: string) => {
    const keys = await vaultKeys(options, owner(server), keyPorts({}, clock));
    opened.push(keys);
    return keys;
  };
  const keys = await open().catch(async (error: unknown) => {
    await vault.close();
    throw error;
  });
  return {
    keys,
    reopen: () => open(),
    other: () => open('two'),
    down: () => vault.down(),
    async up() {
      await vault.up();
      await clock.advance(10_000);
    },
    async steal(id) {
      for (const name of vault.keys.keys()) if (name.includes(`.${id}.`)) vault.keys.delete(name);
    },
    async close() {
      for (const keys of opened) await keys.close?.();
      await vault.close();
    },
  };
});

interface Under {
  vault: FakeTransit;
  ports: TestKeyPorts;
  dir: string;
  open(options?: Partial<VaultKeysOptions>, server?: string): ReturnType<typeof vaultKeys>;
}

async function under(t: TestContext, wishes: Partial<FakeTransitWishes> = {}): Promise<Under> {
  const ports = keyPorts();
  const vault = await fakeTransit({ clock: ports.clock, ...wishes });
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const opened: { close?(): Promise<void> }[] = [];
  t.after(async () => {
    for (const keys of opened) await keys.close?.();
    await vault.close();
    await rm(dir, { recursive: true });
  });
  return {
    vault,
    ports,
    dir,
    async open(options = {}, server) {
      const all: VaultKeysOptions = { address: vault.address, transitPath: 'transit', ...appRole, ...options };
      const keys = await vaultKeys(all, owner(server), ports);
      opened.push(keys);
      return keys;
    },
  };
}

const count = (vault: FakeTransit, call: string): number => vault.calls.filter((one) => one === call).length;

test('a token that is renewed goes on; near its largest age a new login takes its place, and signing never stops', async (t) => {
  const { vault, ports, open } = await under(t);
  vault.ttl = 60;
  vault.maxTtl = 200;
  const key = await (await open()).generate('a', 'ec-p256');
  for (let minute = 0; minute < 20; minute++) {
    for (let step = 0; step < 6; step++) {
      await ports.clock.advance(10_000);
      await calm(vault.calls);
    }
    await signs(key);
  }
  assert.ok(count(vault, 'POST auth/token/renew-self') >= 15);
  const logins = count(vault, 'POST auth/approle/login');
  assert.ok(logins >= 5 && logins <= 12, `${logins} logins in 20 minutes`);
  assert.deepEqual(
    ports.events.filter(({ level }) => level === 'warn'),
    [],
  );
});

test('a token that ended in between is replaced by one login, however many were waiting', async (t) => {
  const { vault, ports, open } = await under(t);
  const key = await (await open()).generate('a', 'ec-p256');
  await ports.clock.advance(10_000);
  vault.revokeAll();
  await Promise.all(Array.from({ length: 20 }, () => signs(key)));
  assert.equal(count(vault, 'POST auth/approle/login'), 2);
});

test('a token that ended and cannot be replaced is a refusal that says so, until it can be', async (t) => {
  const { vault, ports, open, dir } = await under(t);
  const tokenFile = join(dir, 'token');
  await writeFile(tokenFile, 'first\n', { mode: 0o600 });
  vault.addToken('first', {});
  const keys = await open({ login: 'token', tokenFile });
  const key = await keys.generate('a', 'ec-p256');
  await ports.clock.advance(60_000);
  vault.revokeAll();
  await assert.rejects(
    async () => key.sign(Buffer.from('x'), 'der'),
    fault('keys/unavailable', /^the key store Vault refuses its token$/),
  );
  await assert.rejects(async () => keys.check?.(), fault('keys/unavailable', /refuses its token/));
  await writeFile(tokenFile, 'second\n', { mode: 0o600 });
  vault.addToken('second', {});
  await ports.clock.advance(60_000);
  await signs(key);
});

test('the logins by Kubernetes and in a namespace send what Vault wants', async (t) => {
  const { open, dir } = await under(t, { namespace: 'team/a', mount: 'keys/transit' });
  const serviceAccountTokenFile = join(dir, 'sa');
  await writeFile(serviceAccountTokenFile, 'the.service.account\n', { mode: 0o644 });
  const more = { namespace: 'team/a', transitPath: 'keys/transit' };
  const keys = await open({ login: 'kubernetes', role: 'mutual', serviceAccountTokenFile, ...more });
  await signs(await keys.generate('a', 'ec-p256'));
  await assert.rejects(
    open({ login: 'kubernetes', role: 'other', serviceAccountTokenFile, ...more }),
    fault('keys/unavailable', /refuses the login by kubernetes/),
  );
  await assert.rejects(
    open({ transitPath: 'keys/transit' }),
    fault('keys/unavailable', /refuses the login by approle/),
  );
});

test('the certificate login proves itself by TLS, and the server by the given roots', async (t) => {
  const ca = testAuthority({ now: Date.now() });
  const pem = (chain: readonly Buffer[]): string => chain.map((der) => pemEncode('CERTIFICATE', der)).join('');
  const keyPem = (pkcs8: Buffer): string => pemEncode('PRIVATE KEY', pkcs8);
  const listener = ca.issue({ dnsNames: ['localhost'] });
  const client = ca.issue();
  const root = pem([ca.der]);
  const { vault, open, dir } = await under(t, {
    tls: { cert: pem(listener.chain), key: keyPem(listener.key!.exportPkcs8()), ca: root },
  });
  const files = { caFile: join(dir, 'ca'), certificateFile: join(dir, 'crt'), keyFile: join(dir, 'key') };
  await writeFile(files.caFile, root);
  await writeFile(files.certificateFile, pem(client.chain));
  await writeFile(files.keyFile, keyPem(client.key!.exportPkcs8()), { mode: 0o600 });
  const address = vault.address.replace('127.0.0.1', 'localhost');
  const keys = await open({ login: 'certificate', role: 'mutual', address, ...files });
  await signs(await keys.generate('a', 'ec-p256'));
  const stranger = testAuthority({ now: Date.now() });
  await writeFile(files.caFile, pem([stranger.der]));
  await assert.rejects(
    open({ login: 'certificate', address, ...files }),
    fault('keys/unavailable', /cannot be reached/),
  );
});

for (const [what, wrong, message] of [
  ['a token without one', { login: 'token' }, /no token of Vault is given/],
  ['an AppRole without its role', { login: 'approle', roleId: undefined }, /no role ID/],
  ['an AppRole without its secret', { login: 'approle', secretId: undefined }, /no secret ID/],
  ['Kubernetes without a role', { login: 'kubernetes' }, /no role/],
  ['a certificate without one', { login: 'certificate' }, /no certificate/],
  ['a token file that is not there', { login: 'token', tokenFile: '/nowhere' }, /"\/nowhere", cannot be read/],
] as const) {
  test(`a login by ${what} is refused before anything is sent`, async (t) => {
    const { vault, open } = await under(t);
    await assert.rejects(open(wrong as Partial<VaultKeysOptions>), fault('config/invalid', message));
    assert.deepEqual(vault.calls, []);
  });
}

test('a store that is away at the start is said to be, and the address is only for the log', async (t) => {
  const { vault, open } = await under(t);
  await vault.down();
  await assert.rejects(open(), (error: Error & { detail?: string }) => {
    assert.ok(!error.message.includes('127.0.0.1'));
    assert.match(error.detail!, /127\.0\.0\.1.*ECONNREFUSED/);
    return fault('keys/unavailable', /^the key store Vault cannot be reached$/)(error);
  });
});

for (const [what, answer, message] of [
  ['garbage', { status: 200, body: '<html>hello' }, /answered something else than Vault does/],
  ['a number', { status: 200, body: '5' }, /answered something else/],
  ['no signature', { status: 200, body: '{"data":{}}' }, /something else than a signature/],
  [
    'a wrong signature',
    { status: 200, body: '{"data":{"signature":"vault:v1:MEUCIQDAAAAA"}}' },
    /a signature that its key "a" did not make/,
  ],
  ['that it is sealed', { status: 503, body: '{"errors":["Vault is sealed"]}' }, /is sealed or not ready/],
  ['an error', { status: 500, body: '{"errors":["1 error occurred"]}' }, /failed/],
  ['too many', { status: 429, body: '{"errors":["too many"]}' }, /failed/],
] as const) {
  test(`a store that answers ${what} fails that one signature, with a sentence`, async (t) => {
    const { vault, ports, open } = await under(t);
    const key = await (await open()).generate('a', 'ec-p256');
    vault.answer = answer;
    await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('keys/unavailable', message));
    vault.answer = undefined;
    await ports.clock.advance(10_000);
    await signs(key);
    assert.deepEqual(
      ports.events.map(({ event }) => event),
      ['key store cannot be used', 'key store answers again'],
    );
  });
}

test('a store that does not answer is given up after 10 s, and those behind are refused at once', async (t) => {
  const { vault, ports, open } = await under(t);
  const key = await (await open()).generate('a', 'ec-p256');
  vault.silent = true;
  const waiting = assert.rejects(
    async () => key.sign(Buffer.from('x'), 'der'),
    fault('keys/unavailable', /does not answer in 10 s/),
  );
  await calm(vault.calls);
  await ports.clock.advance(10_000);
  await waiting;
  const asked = vault.calls.length;
  for (let caller = 0; caller < 100; caller++)
    await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('keys/unavailable', /does not answer/));
  assert.equal(vault.calls.length, asked);
  vault.silent = false;
  await ports.clock.advance(10_000);
  await signs(key);
});

test('keys that others keep in the same engine are left alone, whatever they are called', async (t) => {
  const { vault, ports, open } = await under(t);
  const keys = await open();
  const key = await keys.generate('a', 'ec-p256');
  const [name, stored] = [...vault.keys][0]!;
  assert.match(name, /^mutual\.example_2eorg\.one\.a\.[0-9a-f]{32}$/);
  for (const other of [
    'team-key',
    'mutual',
    'mutual.example_2eorg.one',
    'mutual.other.one.a.00',
    'mutual.example_2eorg.one.a.b.c',
  ])
    vault.keys.set(other, stored);
  assert.deepEqual(
    (await keys.list()).map(({ id }) => id),
    ['a'],
  );
  await ports.clock.advance(30 * 24 * 3600_000);
  await calm(vault.calls);
  await keys.remove('a');
  assert.equal(vault.keys.size, 5);
  await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('keys/lost'));
});

test('a key that was replaced is deleted two days later, the one in its place never', async (t) => {
  const { vault, ports, open } = await under(t);
  const keys = await open();
  const old = await keys.generate('a', 'ec-p256');
  await ports.clock.advance(1000);
  const fresh = await keys.generate('a', 'ec-p384');
  await passHours(ports.clock, 47, vault.calls);
  assert.equal(vault.keys.size, 2);
  await signs(old);
  await passHours(ports.clock, 48, vault.calls);
  assert.equal(vault.keys.size, 1);
  await signs(fresh);
  await assert.rejects(async () => old.sign(Buffer.from('x'), 'der'), fault('keys/lost'));
  assert.equal(ports.events.filter(({ event }) => /of no more use/.test(event)).length, 1);
});
