import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type BootstrapPorts, bootstrapTrust } from '../../agent/bootstrap.ts';
import { Fault } from '../../src/errors.ts';
import { printBundle, printBundlePem } from '../../src/spiffe/bundle-jwks.ts';
import { testAuthority } from '../support/ca.ts';
import { domain } from './support/fake-server.ts';

const authority = testAuthority({ now: Date.UTC(2030, 0, 1) });
const bundle = authority.bundle();
const hash = createHash('sha256').update(authority.der).digest('hex');

const none: BootstrapPorts = {
  fetchHttps: () => Promise.reject(new Error('not asked for')),
  fetchBundle: () => Promise.reject(new Error('not asked for')),
};
const nothing = { insecureBootstrap: false };

function fileOf(t: TestContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'bundle'), text);
  return join(directory, 'bundle');
}

const rootsOf = (trust: Awaited<ReturnType<typeof bootstrapTrust>>) =>
  trust.kind === 'bundle' && trust.bundle.x509Authorities.map(({ certificate }) => certificate);

for (const [name, text] of [
  ['PEM', printBundlePem(bundle)],
  ['SPIFFE JSON', printBundle(bundle)],
  ['SPIFFE JSON after white space', `\n  ${printBundle(bundle)}`],
] as const) {
  test(`a bundle file may be ${name}`, async (t) => {
    const trust = await bootstrapTrust({ ...nothing, trustBundle: fileOf(t, text) }, domain, none);
    assert.deepEqual(rootsOf(trust), [authority.der]);
  });
}

for (const [name, text] of [
  ['empty', ''],
  ['prose', 'hello'],
  ['JSON without keys', '{}'],
  ['JSON with no key', '{"keys":[]}'],
  ['a PEM of something else', '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'],
  ['PEM of garbage', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'],
] as const) {
  test(`a bundle file that is ${name} is refused, naming the file`, async (t) => {
    const path = fileOf(t, text);
    await assert.rejects(
      bootstrapTrust({ ...nothing, trustBundle: path }, domain, none),
      (fault: Fault) => fault.code === 'bundle/invalid' && fault.message.includes(path),
    );
  });
}

test('a bundle file that does not exist is refused, naming the file and what to do', async () => {
  await assert.rejects(
    bootstrapTrust({ ...nothing, trustBundle: '/nowhere/b.pem' }, domain, none),
    (fault: Fault) => /"\/nowhere\/b.pem" does not exist/.test(fault.message) && fault.hint !== undefined,
  );
});

test('a bundle comes from a page in either form', async () => {
  const fetchHttps = async (url: string) => (assert.equal(url, 'https://x/b'), printBundle(bundle));
  const trust = await bootstrapTrust({ ...nothing, trustBundleUrl: 'https://x/b' }, domain, { ...none, fetchHttps });
  assert.deepEqual(rootsOf(trust), [authority.der]);
});

test('a pinned root: only the authority with the hash is trusted for the second, verified connection', async () => {
  const other = testAuthority({ now: Date.UTC(2030, 0, 1) });
  const offered = { ...bundle, x509Authorities: [...other.bundle().x509Authorities, ...bundle.x509Authorities] };
  const asked: unknown[] = [];
  const fetchBundle: BootstrapPorts['fetchBundle'] = async (roots) => {
    asked.push(roots);
    return offered;
  };
  for (const pin of [hash, hash.toUpperCase().match(/../g)!.join(':')]) {
    asked.length = 0;
    await bootstrapTrust({ ...nothing, trustRootHash: pin }, domain, { ...none, fetchBundle });
    assert.deepEqual(asked, [undefined, [authority.der]]);
  }
});

test('a server that does not offer the pinned root is not trusted', async () => {
  const other = testAuthority({ now: Date.UTC(2030, 0, 1) }).bundle();
  await assert.rejects(
    bootstrapTrust({ ...nothing, trustRootHash: hash }, domain, { ...none, fetchBundle: async () => other }),
    (fault: Fault) => fault.code === 'peer/untrusted',
  );
});

test('a server that shows the pinned root but does not stand under it is not trusted', async () => {
  const fetchBundle: BootstrapPorts['fetchBundle'] = async (roots) => {
    if (roots !== undefined) throw new Fault('peer/untrusted', 'it did not verify');
    return bundle;
  };
  await assert.rejects(
    bootstrapTrust({ ...nothing, trustRootHash: hash }, domain, { ...none, fetchBundle }),
    /did not verify/,
  );
});

test('nothing to know the server by is refused; insecure has to be said', async () => {
  await assert.rejects(bootstrapTrust(nothing, domain, none), (fault: Fault) => fault.code === 'config/invalid');
  assert.deepEqual(await bootstrapTrust({ insecureBootstrap: true }, domain, none), { kind: 'insecure' });
});
