/** An entry whose SVID is stored: through server and agent into files, and out of the way of processes. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { parseCrl } from '../../src/crypto/crl.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { header, type Pair, startPair } from '../support/pair.ts';

const files = (name: string) => ({ store_svid: true, selectors: [{ type: 'files', value: `name:${name}` }] });

/** Resolves when `probe` holds, looked at whenever the agent's log has another line. */
async function when(pair: Pair, probe: () => boolean): Promise<void> {
  let isOver = false;
  const event = new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => {
      isOver = true;
      reject(new Error(`it did not come to pass\n${pair.lines.slice(-20).join('')}`));
    }, 60_000);
    const look = (): void => {
      if (isOver) return;
      if (!probe()) return void setImmediate(look);
      clearTimeout(late);
      resolve();
    };
    look();
  });
  await pair.pass(event, 100);
}

test('a stored SVID lies in files as long as its entry is there, renewed, and no process is given it', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const directory = join(root, 'svids');
  const pair = await startPair(t, {
    server: { defaultX509SvidTtl: '10m' },
    agent: { svidStoresFilesDirectory: directory },
  });
  const read = (name: string): string => readFileSync(join(directory, 'web', name), 'utf8');
  const serial = (): bigint => parseCertificate(pemDecode(read('svid.pem'), 'CERTIFICATE')[0]!).serial;

  const id = await pair.admin.createEntry('/web', files('web'));
  await when(pair, () => existsSync(join(directory, 'web')));
  const leaf = parseCertificate(pemDecode(read('svid.pem'), 'CERTIFICATE')[0]!);
  assert.deepEqual(leaf.uris, ['spiffe://example.org/web']);
  assert.equal(pemDecode(read('bundle.pem'), 'CERTIFICATE').length, 1);
  const keys = [read('key.pem')];
  const refused = pair.workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header });
  await assert.rejects(refused.next(), { code: 'caller/denied' });
  const info = async (): Promise<number> => (await debug(pair)).cached_svidstore_x509_svids_count;
  assert.equal(await info(), 1);

  const first = serial();
  await pair.clock.advance(6 * 60_000);
  await when(pair, () => serial() !== first);
  keys.push(read('key.pem'));
  assert.notEqual(keys[0], keys[1], 'a new SVID has a new key');

  // It goes while the agent is away.
  await pair.stopAgent();
  assert.ok(existsSync(join(directory, 'web')), 'an agent that stops leaves what is stored');
  await pair.admin.call('spire.api.server.entry.v1.Entry', 'BatchDeleteEntry', { ids: [id] });
  await pair.startAgent();
  await when(pair, () => !existsSync(join(directory, 'web')));
  assert.deepEqual(readdirSync(directory), []);
  assert.equal(await info(), 0);

  const secrets = keys.map((key) => pemDecode(key, 'PRIVATE KEY')[0]!.toString('base64').slice(40, 90));
  for (const line of pair.lines) for (const secret of secrets) assert.ok(!line.includes(secret), line);
});

test('beside a stored SVID lie the lists of what is revoked, and the newest when something was', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const pair = await startPair(t, { agent: { svidStoresFilesDirectory: root } });
  const read = (name: string): string => readFileSync(join(root, 'web', name), 'utf8');
  const lists = () => pemDecode(read('crl.pem'), 'X509 CRL').map(parseCrl);
  await pair.admin.createEntry('/web', files('web'));
  await when(pair, () => existsSync(join(root, 'web', 'crl.pem')));
  assert.deepEqual(
    lists().map(({ revoked }) => revoked.size),
    [0],
  );
  const [leaf] = pemDecode(read('svid.pem'), 'CERTIFICATE').map(parseCertificate);
  const [authority] = pemDecode(read('bundle.pem'), 'CERTIFICATE').map(parseCertificate);
  assert.deepEqual(lists()[0]!.authorityKeyId, authority!.subjectKeyId);

  await pair.admin.call('mutual.server.v1.Revocation', 'Revoke', {
    serial: leaf!.serial.toString(),
    unrecorded: true,
  });
  await when(pair, () => existsSync(join(root, 'web', 'crl.pem')) && lists()[0]!.revoked.has(leaf!.serial));
});

// biome-ignore lint/suspicious/noExplicitAny: the answer.
async function debug(pair: Pair): Promise<any> {
  const channel = connectUnix(pair.agent.adminSocket);
  try {
    return await channel.unary('spire.agent.debug.v1.Debug', 'GetInfo', {});
  } finally {
    channel.close();
  }
}
