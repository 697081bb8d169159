/** Revocation lists: what is written is what OpenSSL and another library read, and nothing but that is read back. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import 'reflect-metadata';
import { X509Crl } from '@peculiar/x509';
import fc from 'fast-check';
import { x509Kind } from '../../../server/authority/x509.ts';
import { classicKeyTypes, type KeyType } from '../../../src/crypto/algorithms.ts';
import { parseCertificate } from '../../../src/crypto/certificate.ts';
import { prepareIssuer } from '../../../src/crypto/certificate-writer.ts';
import { crlVerifies, parseCrl, type RevokedCertificate, writeCrl } from '../../../src/crypto/crl.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';

const now = Date.UTC(2026, 10, 24, 12);
const hour = 3_600_000;

async function authority(type: KeyType = 'ec-p256') {
  const key = await memoryKeys().generate('ca', type);
  const subject = { country: ['US'], organization: ['SPIFFE'], commonName: '' };
  const kind = x509Kind(parseTrustDomain('example.org'), subject, 24 * hour, systemRandom);
  const certificate = parseCertificate(Buffer.from((await kind.make(key, now)).material, 'base64'));
  const issuer = prepareIssuer({ certificate });
  return {
    certificate,
    list: (revoked: readonly RevokedCertificate[], number = 7n) =>
      writeCrl(issuer, { number, thisUpdate: now, nextUpdate: now + hour, revoked }, (tbs) => key.sign(tbs, 'der')),
  };
}

// The OpenSSL of the machine may be older than ML-DSA.
for (const type of Object.keys(classicKeyTypes) as KeyType[]) {
  test(`OpenSSL verifies a list of a ${type} authority and reads what was put in`, async () => {
    const ca = await authority(type);
    const der = await ca.list([{ serial: 0xabcdef0123456789n, revokedAt: now }], 300n);
    const dir = mkdtempSync(join(tmpdir(), 'mutual-crl-'));
    try {
      writeFileSync(join(dir, 'ca.pem'), pemEncode('CERTIFICATE', ca.certificate.der));
      writeFileSync(join(dir, 'crl.pem'), pemEncode('X509 CRL', der));
      const done = spawnSync('openssl', ['crl', '-in', 'crl.pem', '-CAfile', 'ca.pem', '-verify', '-noout'], {
        cwd: dir,
        encoding: 'utf8',
      });
      assert.match(done.stdout + done.stderr, /verify OK/);
      const text = execFileSync('openssl', ['crl', '-in', 'crl.pem', '-text', '-noout'], {
        cwd: dir,
        encoding: 'utf8',
      });
      assert.match(text, /Version 2 \(0x1\)/);
      assert.match(text, /X509v3 CRL Number: *\n *(300|0x012C)/);
      assert.match(text, /Serial Number: ABCDEF0123456789/);
      assert.match(text, /Next Update: Nov 24 13:00:00 2026/);
      assert.match(text, /X509v3 Authority Key Identifier/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
}

test('another library reads the same list', async () => {
  const ca = await authority();
  const serials = [5n, 0x80n, 1n << 158n];
  const other = new X509Crl(await ca.list(serials.map((serial) => ({ serial, revokedAt: now - hour }))));
  assert.deepEqual(
    other.entries.map(({ serialNumber }) => BigInt(`0x${serialNumber}`)),
    serials,
  );
  assert.equal(other.thisUpdate.getTime(), now);
  assert.equal(other.nextUpdate?.getTime(), now + hour);
  assert.deepEqual(Buffer.from(other.rawData), await rewritten(other));
  async function rewritten(crl: X509Crl): Promise<Buffer> {
    return parseCrl(Buffer.from(crl.rawData)).der;
  }
});

test('what is written is what is read, for any serials', async () => {
  const ca = await authority();
  const serials = fc.uniqueArray(fc.bigInt({ min: 1n, max: (1n << 159n) - 1n }), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(serials, fc.bigInt({ min: 0n, max: 1n << 100n }), async (given, number) => {
      const read = parseCrl(
        await ca.list(
          given.map((serial) => ({ serial, revokedAt: now })),
          number,
        ),
      );
      assert.deepEqual(new Set(read.revoked.keys()), new Set(given));
      assert.deepEqual([read.number, read.thisUpdate, read.nextUpdate], [number, now, now + hour]);
      assert.ok(read.authorityKeyId?.equals(ca.certificate.subjectKeyId!));
      assert.ok(crlVerifies(read, ca.certificate));
    }),
    { numRuns: 60 },
  );
});

test('a list is not believed when a bit of it was changed, nor of another authority', async () => {
  const ca = await authority();
  const der = await ca.list([{ serial: 77n, revokedAt: now }]);
  assert.ok(!crlVerifies(parseCrl(der), (await authority()).certificate));
  let believed = 0;
  for (let at = 0; at < der.length; at++) {
    const bent = Buffer.from(der);
    bent[at]! ^= 1;
    try {
      if (crlVerifies(parseCrl(bent), ca.certificate)) believed++;
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'der/invalid');
    }
  }
  assert.equal(believed, 0);
});

test('bytes that are cut short or followed by others are refused', async () => {
  const der = await (await authority()).list([{ serial: 77n, revokedAt: now }]);
  for (let length = 0; length < der.length; length += 3)
    assert.throws(() => parseCrl(der.subarray(0, length)), { code: 'der/invalid' });
  assert.throws(() => parseCrl(Buffer.concat([der, Buffer.of(0)])), { code: 'der/invalid' });
});
