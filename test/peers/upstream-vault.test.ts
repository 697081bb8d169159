/** Upstream `vault` on a real OpenBao: an engine that holds a root, and one that holds an intermediate. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { vaultUpstream } from '../../server/upstream/vault.ts';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import type { Fault } from '../../src/errors.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import { upstreamSuite } from '../suites/upstream.ts';
import { drivenClock } from '../support/clock.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { td, testServer } from '../support/server.ts';
import { type OpenBao, startOpenBao } from './support/openbao.ts';
import { makePlace } from './support/place.ts';

const place = makePlace();
let bao: OpenBao;
let mounts = 0;
before(async () => {
  bao = await startOpenBao(place);
});
after(() => place.close());

const text = (answer: Record<string, unknown>, name: string): string =>
  String((answer.data as Record<string, unknown>)[name]);

/** Mounts an engine. Gives its path. */
async function engine(): Promise<string> {
  const path = `pki-${mounts++}`;
  await bao.admin('POST', `sys/mounts/${path}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
  return path;
}

/** Makes a root in an engine, and lets it sign from now on. Gives its certificate, PEM. */
async function newRoot(path: string, more: object = {}): Promise<string> {
  const asked = { common_name: `root ${mounts++}`, key_type: 'ec', key_bits: 256, ttl: '8760h', ...more };
  const made = await bao.admin('POST', `${path}/root/generate/internal`, asked);
  await bao.admin('POST', `${path}/config/issuers`, { default: text(made, 'issuer_id') });
  return text(made, 'certificate');
}

/** The same of an intermediate; with `isWhole` the engine knows the root too. */
async function newIntermediate(path: string, isWhole: boolean): Promise<string> {
  const above = await engine();
  const root = await newRoot(above);
  const asked = { common_name: `between ${mounts++}`, key_type: 'ec', key_bits: 256 };
  const csr = text(await bao.admin('POST', `${path}/intermediate/generate/internal`, asked), 'csr');
  const signed = await bao.admin('POST', `${above}/root/sign-intermediate`, {
    csr,
    ttl: '4000h',
    common_name: 'between',
  });
  const certificate = `${text(signed, 'certificate')}\n${isWhole ? root : ''}`;
  const { data } = await bao.admin('POST', `${path}/intermediate/set-signed`, { certificate });
  const { mapping } = data as { mapping: Record<string, string> };
  const [issuer] = Object.entries(mapping).find(([, key]) => key !== '')!;
  await bao.admin('POST', `${path}/config/issuers`, { default: issuer });
  return root;
}

/** What docs/upstream.md tells operators to allow, and a login that may no more. */
async function login(path: string) {
  const policy = `path "${path}/issuer/default/sign-intermediate" { capabilities = ["update"] }
path "${path}/issuer/default/json" { capabilities = ["read"] }`;
  await bao.admin('PUT', `sys/policies/acl/${path}`, { policy });
  const made = await bao.admin('POST', 'auth/token/create', { policies: [path], ttl: '1h' });
  return (made.auth as { client_token: string }).client_token;
}

async function under(path: string, bundleFile?: string) {
  // Certificates of OpenBao begin half a minute ago by its clock; ours is a little ahead.
  const clock = drivenClock(Date.now() + 60_000);
  const token = await login(path);
  const tokenFile = place.path(path, 'token');
  writeFileSync(tokenFile, token, { mode: 0o600 });
  const options = { address: bao.address, caFile: bao.caFile, login: 'token', pkiPath: path, tokenFile } as const;
  const upstream = vaultUpstream(
    { ...options, issuer: 'default', ...(bundleFile && { bundleFile }) },
    keyPorts({}, clock),
  );
  const flags = {
    'upstream-authority': 'vault',
    'upstream-vault-address': bao.address,
    'upstream-vault-ca-file': bao.caFile,
    'upstream-vault-token-file': tokenFile,
    'upstream-vault-pki-path': path,
    ...(bundleFile && { 'upstream-vault-bundle-file': bundleFile }),
  };
  return { clock, upstream, flags, token, close: async () => upstream.close?.() };
}

upstreamSuite('vault (a real OpenBao), a root', async () => {
  const path = await engine();
  await newRoot(path);
  return { ...(await under(path)), rotate: async () => void (await newRoot(path)) };
});

upstreamSuite('vault (a real OpenBao), an intermediate with its root', async () => {
  const path = await engine();
  await newIntermediate(path, true);
  return { ...(await under(path)), rotate: async () => void (await newIntermediate(path, true)) };
});

upstreamSuite('vault (a real OpenBao), an intermediate whose root is in a file', async () => {
  const path = await engine();
  const bundleFile = place.path(path, 'roots.pem');
  const rotate = async () => writeFileSync(bundleFile, await newIntermediate(path, false));
  await rotate();
  return { ...(await under(path, bundleFile)), rotate };
});

const request = () => makeCsr(generateKey('ec-p256').privateKey, { uri: trustDomainId(td), authority: true });
const signal = new AbortController().signal;

test('an intermediate without its root anywhere is refused, with what to do', async () => {
  const path = await engine();
  await newIntermediate(path, false);
  const { upstream, close } = await under(path);
  await assert.rejects(upstream.mint(request(), 3_600_000, signal), fault('upstream/refused', /does not reach a root/));
  await close();
});

test('a root whose path length allows nobody below our authority is refused at the start of a server', async (t) => {
  const path = await engine();
  await newRoot(path, { max_path_length: 0 });
  const { clock, flags, close } = await under(path);
  t.after(close);
  await assert.rejects(testServer(t, { clock, flags }), (error: Fault) => {
    assert.equal(error.message, 'the upstream authority Vault refuses signing our certificate authority');
    assert.match(error.detail ?? '', /max path length/i);
    return true;
  });
});

test('an issuer that is not there, a login that may not, a Vault that is sealed: a sentence each, and a server that goes on', async (t) => {
  const path = await engine();
  await newRoot(path);
  const { clock, flags, token, close } = await under(path);
  t.after(close);
  const missing = { ...flags, 'upstream-vault-issuer': 'nobody' };
  await assert.rejects(testServer(t, { clock, flags: missing }), /the upstream authority Vault refuses signing our/);
  const nowhere = { ...flags, 'upstream-vault-address': 'https://127.0.0.1:1' };
  await assert.rejects(testServer(t, { clock, flags: nowhere }), /the upstream authority Vault cannot be reached/);

  const server = await testServer(t, { clock, flags });
  await bao.seal();
  try {
    const sealed = await server.admin.refusal('localAuthority', 'PrepareX509Authority');
    assert.match(sealed.message, /the upstream authority Vault is sealed or not ready/);
    // What is there goes on, over a start too.
    await server.restart();
    assert.equal((await server.mint('/workload')).chain.length, 2);
  } finally {
    await bao.unseal();
  }
  clock.jump(120_000);
  await server.admin.call('localAuthority', 'PrepareX509Authority');
  await bao.admin('POST', 'auth/token/revoke', { token });
  clock.jump(120_000);
  const refused = await server.admin.refusal('localAuthority', 'PrepareX509Authority');
  assert.match(refused.message, /the upstream authority Vault refuses/);
  assert.ok(!server.lines.join('').includes(token));
});
