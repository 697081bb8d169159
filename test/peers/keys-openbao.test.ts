import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { name } from '../../src/crypto/certificate-writer.ts';
import { pemEncode } from '../../src/crypto/pem.ts';
import { diskKeys } from '../../src/keys/disk.ts';
import type { VaultKeysOptions } from '../../src/keys/options.ts';
import { sealer } from '../../src/keys/seal.ts';
import { vaultKeys, vaultWrapper } from '../../src/keys/vault.ts';
import { systemClock } from '../../src/run/clock.ts';
import { systemRandom } from '../../src/run/random.ts';
import { keyStoreSuite, signs } from '../suites/key-store.ts';
import { testAuthority } from '../support/ca.ts';
import { drivenClock } from '../support/clock.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { openedStores } from '../support/key-stores.ts';
import { type OpenBao, startOpenBao } from './support/openbao.ts';
import { makePlace } from './support/place.ts';
import { until } from './support/until.ts';

const place = makePlace();
let bao: OpenBao;
before(async () => {
  bao = await startOpenBao(place);
  await prepare();
});
after(() => place.close());

/** The least that a server needs: what docs/keys.md tells operators to allow. */
const policy = `
path "transit/keys" { capabilities = ["list"] }
path "transit/keys/mutual.*" { capabilities = ["create", "read", "update", "delete"] }
path "transit/sign/mutual.*" { capabilities = ["update"] }
path "transit/encrypt/seal" { capabilities = ["update"] }
path "transit/decrypt/seal" { capabilities = ["update"] }
`;

async function prepare(namespace?: string): Promise<void> {
  const admin = (method: string, path: string, body: object) => bao.admin(method, path, body, namespace);
  await admin('POST', 'sys/mounts/transit', { type: 'transit' });
  await admin('POST', 'transit/keys/seal', {});
  await admin('PUT', 'sys/policies/acl/mutual', { policy });
  await admin('POST', 'sys/auth/approle', { type: 'approle' });
  await admin('POST', 'auth/approle/role/mutual', { token_policies: ['mutual'], token_ttl: '1h' });
}

async function appRole(namespace?: string): Promise<{ login: 'approle'; roleId: string; secretId: string }> {
  const role = await bao.admin('GET', 'auth/approle/role/mutual/role-id', undefined, namespace);
  const secret = await bao.admin('POST', 'auth/approle/role/mutual/secret-id', {}, namespace);
  return {
    login: 'approle',
    roleId: (role.data as { role_id: string }).role_id,
    secretId: (secret.data as { secret_id: string }).secret_id,
  };
}

async function under(more: Partial<VaultKeysOptions> = {}, clock = drivenClock(Date.now())) {
  const opened = openedStores();
  const trustDomain = `${systemRandom.uuid()}.org`;
  const ports = keyPorts({}, clock);
  const base = { address: bao.address, caFile: bao.caFile, transitPath: 'transit' };
  const options: VaultKeysOptions = { ...base, ...(more.login ? {} : await appRole()), ...more } as VaultKeysOptions;
  const open = (server = 'one') => opened.keep(vaultKeys(options, { trustDomain, server }, ports));
  return { clock, opened, open, options, ports, trustDomain };
}

keyStoreSuite('vault (a real OpenBao)', { exportable: false }, async () => {
  const { clock, opened, open, trustDomain } = await under();
  return {
    keys: await open(),
    reopen: () => open(),
    other: () => open('two'),
    down: () => bao.seal(),
    async up() {
      await bao.unseal();
      await clock.advance(10_000);
    },
    async steal(id) {
      const { data } = await bao.admin('GET', 'transit/keys?list=true');
      const prefix = `mutual.${trustDomain.replaceAll('.', '_2e')}.one.${id}.`;
      for (const name of (data as { keys: string[] }).keys.filter((one) => one.startsWith(prefix))) {
        await bao.admin('POST', `transit/keys/${name}/config`, { deletion_allowed: true });
        await bao.admin('DELETE', `transit/keys/${name}`);
      }
    },
    close: opened.close,
  };
});

describe('a real OpenBao', () => {
  it('takes the token login, and says when its token has ended', async () => {
    const made = await bao.admin('POST', 'auth/token/create', { policies: ['mutual'], ttl: '1h' });
    const token = (made.auth as { client_token: string }).client_token;
    const { opened, open, clock } = await under({ login: 'token', token });
    const key = await (await open()).generate('a', 'ec-p256');
    await signs(key);
    await bao.admin('POST', 'auth/token/revoke', { token });
    await clock.advance(10_000);
    await assert.rejects(
      async () => key.sign(Buffer.from('x'), 'der'),
      fault('keys/unavailable', /^the key store Vault refuses its token$/),
    );
    await opened.close();
  });

  it('takes the certificate login, of the right certificate alone', async () => {
    const ca = testAuthority({ now: Date.now() });
    // It knows whom it let in by the common name.
    const client = ca.issue({ subject: name([['CN', 'server-1']]) });
    const pem = (der: Buffer): string => pemEncode('CERTIFICATE', der);
    await bao.admin('POST', 'sys/auth/cert', { type: 'cert' });
    await bao.admin('POST', 'auth/cert/certs/mutual', { certificate: pem(ca.der), token_policies: ['mutual'] });
    const files = { certificateFile: place.path('client.crt'), keyFile: place.path('client.key') };
    writeFileSync(files.certificateFile, client.chain.map(pem).join(''));
    writeFileSync(files.keyFile, pemEncode('PRIVATE KEY', client.key!.exportPkcs8()), { mode: 0o600 });
    const { opened, open } = await under({ login: 'certificate', role: 'mutual', ...files });
    await signs(await (await open()).generate('a', 'ec-p256'));
    await opened.close();
    const stranger = testAuthority({ now: Date.now() }).issue();
    writeFileSync(files.certificateFile, stranger.chain.map(pem).join(''));
    writeFileSync(files.keyFile, pemEncode('PRIVATE KEY', stranger.key!.exportPkcs8()), { mode: 0o600 });
    await assert.rejects(
      (await under({ login: 'certificate', role: 'mutual', ...files })).open(),
      fault('keys/unavailable', /refuses the login by certificate/),
    );
  });

  it('takes the Kubernetes login (a fake TokenReview)', async (t) => {
    const reviews = createServer((request, response) => {
      void (async () => {
        let text = '';
        for await (const part of request) text += part;
        const { spec } = JSON.parse(text);
        const authenticated = spec.token === jwt;
        response.writeHead(201, { 'content-type': 'application/json' });
        response.end(
          JSON.stringify({
            apiVersion: 'authentication.k8s.io/v1',
            kind: 'TokenReview',
            status: {
              authenticated,
              audiences: ['audience'],
              user: { username: 'system:serviceaccount:spire:mutual', uid: 'u-1', groups: [] },
            },
          }),
        );
      })();
    });
    t.after(() => reviews.close());
    await new Promise<void>((resolve) => reviews.listen(0, '127.0.0.1', resolve));
    const jwt = testAuthority({ now: Date.now() }).jwt({
      sub: 'system:serviceaccount:spire:mutual',
      iss: 'https://kubernetes.default.svc',
      nbf: Math.floor(Date.now() / 1000) - 5,
      'kubernetes.io': { namespace: 'spire', serviceaccount: { name: 'mutual', uid: 'u-1' } },
    });
    await bao.admin('POST', 'sys/auth/kubernetes', { type: 'kubernetes' });
    await bao.admin('POST', 'auth/kubernetes/config', {
      kubernetes_host: `http://127.0.0.1:${(reviews.address() as AddressInfo).port}`,
      disable_local_ca_jwt: true,
      kubernetes_ca_cert: pemEncode('CERTIFICATE', testAuthority({ now: Date.now() }).der),
    });
    await bao.admin('POST', 'auth/kubernetes/role/mutual', {
      audience: 'audience',
      bound_service_account_names: ['mutual'],
      bound_service_account_namespaces: ['spire'],
      token_policies: ['mutual'],
    });
    const serviceAccountTokenFile = place.path('sa');
    writeFileSync(serviceAccountTokenFile, jwt);
    const { opened, open } = await under({ login: 'kubernetes', role: 'mutual', serviceAccountTokenFile });
    await signs(await (await open()).generate('a', 'ec-p256'));
    await opened.close();
  });

  it('keeps the keys of a namespace in it', async () => {
    await bao.admin('POST', 'sys/namespaces/team', {});
    await prepare('team');
    const { opened, open } = await under({ namespace: 'team', ...(await appRole('team')) });
    await signs(await (await open()).generate('a', 'rsa-2048'));
    const { data } = await bao.admin('GET', 'transit/keys?list=true', undefined, 'team');
    assert.equal((data as { keys: string[] }).keys.filter((one) => one.startsWith('mutual.')).length, 1);
    await opened.close();
  });

  it('renews its token, and logs in anew at the largest age of it: no signature fails over several lives', async () => {
    await bao.admin('POST', 'auth/approle/role/short', {
      token_policies: ['mutual'],
      token_ttl: '2s',
      token_max_ttl: '5s',
    });
    const role = await bao.admin('GET', 'auth/approle/role/short/role-id');
    const secret = await bao.admin('POST', 'auth/approle/role/short/secret-id', {});
    const login = {
      login: 'approle',
      roleId: (role.data as { role_id: string }).role_id,
      secretId: (secret.data as { secret_id: string }).secret_id,
    } as const;
    const opened = openedStores();
    const options: VaultKeysOptions = { address: bao.address, caFile: bao.caFile, transitPath: 'transit', ...login };
    const ports = { ...keyPorts(), clock: systemClock };
    const owner = { trustDomain: 'example.org', server: systemRandom.uuid() };
    const key = await (await opened.keep(vaultKeys(options, owner, ports))).generate('a', 'ec-p256');
    const end = performance.now() + 12_000;
    let signatures = 0;
    await until('twelve seconds are over', 60_000, async () => {
      await signs(key);
      signatures++;
      return performance.now() > end;
    });
    assert.ok(signatures > 50);
    assert.deepEqual(
      ports.events.filter(({ level }) => level === 'warn'),
      [],
    );
    await opened.close();
  });

  it('refuses what the policy does not allow, in a sentence', async () => {
    await bao.admin('PUT', 'sys/policies/acl/reader', { policy: 'path "transit/keys" { capabilities = ["list"] }' });
    const made = await bao.admin('POST', 'auth/token/create', { policies: ['reader'], ttl: '1h' });
    const token = (made.auth as { client_token: string }).client_token;
    const { opened, open } = await under({ login: 'token', token });
    const keys = await open();
    await assert.rejects(
      keys.generate('a', 'ec-p256'),
      fault('keys/unavailable', /^the key store Vault refuses making a key$/),
    );
    await opened.close();
  });

  it('wraps the key of a sealed file, which opens with it and not without', async () => {
    const { options, ports } = await under();
    const path = place.path('sealed', 'keys.json');
    const wrapped = (name: string) => sealer(vaultWrapper(options, name, ports), systemRandom);
    await (await diskKeys(path, wrapped('seal'))).generate('a', 'ec-p256');
    await signs((await (await diskKeys(path, wrapped('seal'))).get('a'))!);
    await assert.rejects(
      diskKeys(path, wrapped('other')),
      fault('keys/unavailable', /refuses to decrypt with "other"/),
    );
  });
});
