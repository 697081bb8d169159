import 'reflect-metadata';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as peculiar from '@peculiar/x509';
import { generateKey, keyTypes } from '../../../src/crypto/algorithms.ts';
import { KeyUsage, parseCertificate } from '../../../src/crypto/certificate.ts';
import {
  authorityKeyId,
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  name,
  prepareIssuer,
  subjectAltName,
  subjectKeyId,
  writeCertificate,
} from '../../../src/crypto/certificate-writer.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { heldKey } from '../../../src/keys/key-store.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';

const now = Date.UTC(2030, 0, 1);
const leafUsage = KeyUsage.digitalSignature | KeyUsage.keyEncipherment | KeyUsage.keyAgreement;

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`a leaf of a ${keyType} authority equals, field by field, the one @peculiar/x509 makes`, async () => {
    const ca = testAuthority({ now, keyType });
    const issuer = prepareIssuer({ certificate: ca.certificate });
    const leafKey = heldKey('leaf', generateKey('ec-p256').privateKey);
    const serial = Buffer.from('8f00112233445566778899aabbccddee', 'hex');
    const subject = name([
      ['C', 'US'],
      ['O', 'SPIRE'],
      ['CN', 'web.example.org'],
    ]);
    const ours = writeCertificate(
      {
        serial,
        issuer: issuer.name,
        notBefore: now - 10_000,
        notAfter: now + 3_600_000,
        subject,
        spki: leafKey.publicKey,
        extensions: [
          keyUsage(leafUsage),
          extendedKeyUsage('serverAuth', 'clientAuth'),
          basicConstraints({ ca: false }),
          subjectKeyId(leafKey.publicKey),
          issuer.authorityKeyId,
          subjectAltName({ uris: ['spiffe://example.org/web'], dnsNames: ['web.example.org'] }),
        ],
        algorithm: issuer.algorithm,
      },
      (tbs) => ca.key.sign(tbs, 'der'),
    );

    const { hash, shape } = keyTypes[keyType];
    const algorithm =
      shape.kind === 'rsa'
        ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
        : {
            name: 'ECDSA',
            namedCurve: shape.kind === 'ec' ? shape.curve : '',
            hash: hash === 'sha256' ? 'SHA-256' : 'SHA-384',
          };
    const signingKey = await crypto.subtle.importKey('pkcs8', new Uint8Array(ca.key.exportPkcs8()), algorithm, false, [
      'sign',
    ]);
    const theirs = await peculiar.X509CertificateGenerator.create({
      serialNumber: serial.toString('hex'),
      issuer: new peculiar.X509Certificate(ca.der).subjectName,
      subject: new peculiar.Name([
        { C: [{ printableString: 'US' }] },
        { O: [{ printableString: 'SPIRE' }] },
        { CN: [{ printableString: 'web.example.org' }] },
      ]),
      notBefore: new Date(now - 10_000),
      notAfter: new Date(now + 3_600_000),
      publicKey: new peculiar.PublicKey(new Uint8Array(leafKey.publicKey)),
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [
        new peculiar.KeyUsagesExtension(leafUsage, true),
        new peculiar.ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']),
        new peculiar.BasicConstraintsExtension(false, undefined, true),
        await peculiar.SubjectKeyIdentifierExtension.create(new peculiar.PublicKey(new Uint8Array(leafKey.publicKey))),
        new peculiar.AuthorityKeyIdentifierExtension(ca.certificate.subjectKeyId!.toString('hex')),
        new peculiar.SubjectAlternativeNameExtension([
          { type: 'dns', value: 'web.example.org' },
          { type: 'url', value: 'spiffe://example.org/web' },
        ]),
      ],
    });
    const [a, b] = [parseCertificate(ours), parseCertificate(Buffer.from(theirs.rawData))];
    assert.deepEqual(a.extensions, b.extensions);
    // Every signed byte; signatures of ECDSA differ each time.
    assert.deepEqual(a.tbs, b.tbs);
    assert.deepEqual(a.signatureAlgorithm, b.signatureAlgorithm);

    const read = new peculiar.X509Certificate(ours);
    assert.ok(await read.verify({ publicKey: new peculiar.X509Certificate(ca.der).publicKey, signatureOnly: true }));
    const node = new X509Certificate(ours);
    assert.ok(node.checkIssued(new X509Certificate(ca.der)));
    assert.ok(node.verify(new X509Certificate(ca.der).publicKey));
    assert.equal(node.subjectAltName, 'DNS:web.example.org, URI:spiffe://example.org/web');
  });
}

test('X509-5 X509-6 X509-12 X509-15 openssl verify -x509_strict accepts authority, intermediate and leaf', () => {
  const ca = testAuthority({ now: Date.now(), keyType: 'ec-p384' });
  const chain = ca
    .intermediate({ pathLength: 0 })
    .issue({ subject: name([]), sanCritical: true, dnsNames: ['*.example.org'] }).chain;
  for (const [index, below] of chain.entries()) {
    const above = new X509Certificate(chain[index + 1] ?? ca.der);
    assert.ok(new X509Certificate(below).checkIssued(above));
  }
  const folder = mkdtempSync(join(tmpdir(), 'mutual-'));
  try {
    const file = (what: string, der: Buffer): string => {
      writeFileSync(join(folder, what), pemEncode('CERTIFICATE', der));
      return join(folder, what);
    };
    const [root, middle, leaf] = [file('root', ca.der), file('middle', chain[1]!), file('leaf', chain[0]!)];
    const ran = spawnSync('openssl', ['verify', '-x509_strict', '-CAfile', root, '-untrusted', middle, leaf], {
      encoding: 'utf8',
    });
    // Where no openssl is installed, node's own checks above are the proof.
    if (ran.error === undefined) assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a signature that comes later gives the same certificate as one that comes at once', async () => {
  const { certificate, key } = testAuthority({ now, keyType: 'rsa-2048' });
  const parts = {
    serial: Buffer.of(1),
    issuer: certificate.subject,
    notBefore: now,
    notAfter: now + 1000,
    subject: certificate.subject,
    spki: certificate.spki,
    extensions: [],
    algorithm: certificate.signatureAlgorithm,
  };
  const atOnce = writeCertificate(parts, (tbs) => key.sign(tbs, 'der'));
  const later = await writeCertificate(parts, async (tbs) => key.sign(tbs, 'der'));
  assert.ok(Buffer.isBuffer(atOnce));
  assert.deepEqual(later, atOnce);
  assert.equal(parseCertificate(atOnce).extensions.length, 0);
});

test('name and key identifier of the issuer are copied, also where the identifier is not the hash of its key', () => {
  const ca = testAuthority({ now });
  const own = Buffer.from('0011223344', 'hex');
  const issuer = prepareIssuer({ certificate: { ...ca.certificate, subjectKeyId: own } });
  assert.deepEqual(issuer.authorityKeyId, authorityKeyId(own));
  assert.equal(issuer.name, ca.certificate.subject);
});

test('a serial number of zero, or too long, and an end before the beginning are not written', () => {
  const { certificate, key } = testAuthority({ now });
  const write = (serial: Buffer, notAfter = now): Buffer =>
    writeCertificate(
      {
        serial,
        issuer: certificate.subject,
        notBefore: now,
        notAfter,
        subject: certificate.subject,
        spki: certificate.spki,
        extensions: [],
        algorithm: certificate.signatureAlgorithm,
      },
      (tbs) => key.sign(tbs, 'der'),
    );
  for (const serial of [Buffer.alloc(0), Buffer.of(0), Buffer.alloc(16), Buffer.alloc(20, 0xff), Buffer.alloc(21, 1)])
    assert.throws(() => write(serial), RangeError);
  assert.throws(() => write(Buffer.of(1), now - 1), RangeError);
  for (const serial of [Buffer.of(0, 0, 5), Buffer.of(0x80), Buffer.alloc(20, 0x7f)])
    assert.equal(parseCertificate(write(serial)).serial, BigInt(`0x${serial.toString('hex')}`));
});

test('a name that is not printable ASCII is never put into a certificate', () => {
  for (const dnsName of ['', 'a\0b', 'é', 'a\nb'])
    assert.throws(() => subjectAltName({ dnsNames: [dnsName] }), fault('input/invalid'));
});

test('an authority with a key this program does not sign with is refused when it is prepared', () => {
  const ca = testAuthority({ now });
  const odd = { ...ca.certificate, key: { kind: 'rsa' as const, bits: 2560, keyBits: Buffer.alloc(0) } };
  assert.throws(() => prepareIssuer({ certificate: odd }), fault('input/invalid', /RSA 2560/));
});
