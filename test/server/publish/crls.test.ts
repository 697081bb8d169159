/** The lists over HTTP, from a server that signs them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorityId } from '../../../src/crypto/certificate.ts';
import { crlVerifies, parseCrl } from '../../../src/crypto/crl.ts';
import { pemDecode } from '../../../src/crypto/pem.ts';
import { authorityCertificate } from '../../../src/spiffe/x509-svid.ts';
import { testServer } from '../../support/server.ts';

test('a list is fetched by its authority, all of them as PEM, and nothing else is answered', async (t) => {
  const server = await testServer(t, { flags: { 'revocation-listen': '127.0.0.1:0' } });
  const at = `http://127.0.0.1:${server.running.crls?.port}`;
  const authority = authorityCertificate((await server.bundle()).x509Authorities[0]!)!;
  const svid = await server.mint('/web');
  await server.admin.call('revocation', 'Revoke', { serial: svid.leaf.serial.toString() });

  const one = await fetch(`${at}/crl/${authorityId(authority)}.crl`);
  assert.deepEqual([one.status, one.headers.get('content-type')], [200, 'application/pkix-crl']);
  const crl = parseCrl(Buffer.from(await one.arrayBuffer()));
  assert.ok(crlVerifies(crl, authority) && crl.revoked.has(svid.leaf.serial));
  const all = await (await fetch(`${at}/crl.pem`)).text();
  assert.deepEqual(pemDecode(all, 'X509 CRL'), [crl.der]);

  const head = await fetch(`${at}/crl.pem`, { method: 'HEAD' });
  assert.deepEqual([head.status, await head.text()], [200, '']);
  for (const path of ['/', '/crl', '/crl/00.crl', '/crl/../crl.pem/x', `/crl/${'a'.repeat(200)}.crl`])
    assert.equal((await fetch(`${at}${path}`)).status, 404, path);
  assert.equal((await fetch(`${at}/crl.pem`, { method: 'POST', body: 'x' })).status, 405);
});
