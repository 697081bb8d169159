/** A whole server whose keys are elsewhere (a fake Transit, over real HTTP), through outages of them. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/run/clock.ts';
import { fakeTransit } from '../support/fake-transit.ts';
import { header, startPair } from '../support/pair.ts';

async function under(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-remote-'));
  const transit = await fakeTransit({ clock: systemClock });
  transit.addToken('the-token', {});
  const keysVaultTokenFile = join(dir, 'token');
  await writeFile(keysVaultTokenFile, 'the-token', { mode: 0o600 });
  const pair = await startPair(t, {
    server: { keysStore: 'vault', keysVaultAddress: transit.address, keysVaultTokenFile, healthListen: '127.0.0.1:0' },
  });
  t.after(async () => {
    await transit.close();
    await rm(dir, { recursive: true });
  });
  const token = () =>
    pair.workload.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, { metadata: header });
  const mint = () =>
    pair.admin.call('spire.api.server.svid.v1.SVID', 'MintJWTSVID', {
      id: { trust_domain: 'example.org', path: '/web' },
      audience: ['a'],
    });
  return { transit, pair, token, mint };
}

test('CVE-2026-31837 keys away or answering garbage fail what has to be signed, in a sentence, and nothing else; then all signs again', async (t) => {
  const { transit, pair, token, mint } = await under(t);
  await pair.admin.createEntry('/web');
  await token();
  await mint();
  const health = async (what: string): Promise<string> => {
    const { host, port } = pair.server.health!;
    const response = await fetch(`http://${host}:${port}/${what}`);
    return `${response.status} ${await response.text()}`;
  };
  const answer = async (all: typeof transit.answer): Promise<void> => {
    transit.answer = all;
  };
  const wrong = [
    [() => transit.down(), () => transit.up(), /^the key store Vault cannot be reached/],
    [
      () => answer({ status: 200, body: '<html>' }),
      () => answer(undefined),
      /^the key store Vault answered something else than Vault does/,
    ],
    [
      () => answer({ status: 503, body: '{"errors":["sealed"]}' }),
      () => answer(undefined),
      /^the key store Vault is sealed or not ready/,
    ],
  ] as const;
  for (const [breakIt, mend, sentence] of wrong) {
    await breakIt();
    await assert.rejects(mint(), { message: sentence });
    // Everything that needs no signature goes on: entries, bundles, what the workload holds.
    await pair.admin.call('spire.api.server.entry.v1.Entry', 'ListEntries', {});
    await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
    assert.match(await health('live'), /^200 /);
    assert.match(await health('ready'), /^503 .*the key store Vault /s);
    const asked = transit.calls.length;
    for (let turn = 0; turn < 5; turn++) await assert.rejects(mint(), { message: sentence });
    assert.equal(transit.calls.length, asked, 'while it is away a moment it is not asked again');
    await mend();
    await pair.clock.advance(10_000);
    await mint();
    assert.match(await health('ready'), /^200 /);
  }
  const lines = pair.lines.filter((line) => line.includes('key store'));
  assert.equal(lines.filter((line) => line.includes('cannot be used')).length, wrong.length);
  assert.equal(lines.filter((line) => line.includes('answers again')).length, wrong.length);
});

test('after a restart the server finds its keys there, and no authority is made anew', async (t) => {
  const { pair, mint } = await under(t);
  const before = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  await pair.stopServer();
  await pair.startServer();
  await mint();
  const after = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  assert.deepEqual(after.x509_authorities, before.x509_authorities);
  assert.deepEqual(after.jwt_authorities, before.jwt_authorities);
});

test('keys deleted while the server runs: it says so, makes other authorities without a restart, and what was issued stays good', async (t) => {
  const { transit, pair, mint } = await under(t);
  await pair.admin.createEntry('/web');
  const bundle = () => pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  const before = await bundle();
  const ready = async (): Promise<string> => {
    const { host, port } = pair.server.health!;
    const response = await fetch(`http://${host}:${port}/ready`);
    return `${response.status} ${await response.text()}`;
  };
  const { svid: old } = await mint();
  transit.keys.clear();
  await assert.rejects(mint(), { message: /^key "jwt-[0-9a-f]+" is no longer in the key store Vault/ });
  let after = before;
  for (let turn = 0; turn < 1000; turn++) {
    await pair.clock.advance(turn % 20 === 0 ? 5_000 : 0);
    after = await bundle();
    const isDone = after.x509_authorities.length === 2 && after.jwt_authorities.length === 2;
    if (isDone && (await ready()).startsWith('200 ')) break;
  }
  assert.equal(after.x509_authorities.length, 2, 'the new one beside the lost one');
  assert.equal(after.jwt_authorities.length, 2, 'the new one beside the lost one');
  const { svid } = await mint();
  assert.notEqual(svid.token, old.token);
  const kid = (token: string): string => JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid;
  const kids = after.jwt_authorities.map((one: { key_id: string }) => one.key_id);
  assert.ok(kids.includes(kid(old.token)), 'what the lost one signed still verifies');
  assert.ok(kids.includes(kid(svid.token)) && kid(svid.token) !== kid(old.token));
  assert.match(await ready(), /^200 /);
  for (const kind of ['X.509', 'JWT'])
    assert.ok(pair.lines.some((line) => line.includes(`${kind} authority has lost its key: making a new one`)));
});
