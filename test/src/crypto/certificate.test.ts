import 'reflect-metadata';
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import * as peculiar from '@peculiar/x509';
import fc from 'fast-check';
import {
  authorityId,
  certificateLimits,
  isSignedBy,
  KeyUsage,
  parseCertificate,
  splitCertificates,
} from '../../../src/crypto/certificate.ts';
import { basicConstraints, extension, keyUsage, name } from '../../../src/crypto/certificate-writer.ts';
import { bitString, boolean, integer, objectId, octetString, sequence, time, tlv } from '../../../src/crypto/der.ts';
import { Fault } from '../../../src/errors.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { mutated } from '../../support/mutate.ts';
import { certificates } from './corpus.ts';

const now = Date.UTC(2030, 0, 1);
const ca = testAuthority({ now });
const seeds = Object.values(certificates).map((text) => Buffer.from(text, 'base64'));
const read = (which: keyof typeof certificates) => parseCertificate(Buffer.from(certificates[which], 'base64'));

for (const [which, text] of Object.entries(certificates)) {
  test(`reads the same as OpenSSL and @peculiar/x509 of ${which}`, () => {
    const der = Buffer.from(text, 'base64');
    const ours = parseCertificate(der);
    const openssl = new X509Certificate(der);
    const other = new peculiar.X509Certificate(der);
    assert.equal(ours.serial, BigInt(`0x${openssl.serialNumber}`));
    assert.equal(ours.notBefore, Date.parse(openssl.validFrom));
    assert.equal(ours.notAfter, Date.parse(openssl.validTo));
    assert.equal(ours.isCa, openssl.ca);
    assert.ok(ours.publicKey.equals(openssl.publicKey));
    assert.deepEqual(ours.spki, Buffer.from(other.publicKey.rawData));
    assert.deepEqual(ours.subject, Buffer.from(other.subjectName.toArrayBuffer()));
    assert.deepEqual(ours.issuer, Buffer.from(other.issuerName.toArrayBuffer()));
    assert.deepEqual(ours.signature, Buffer.from(other.signature));
    assert.equal(ours.commonName, other.subjectName.getField('CN')[0]);
    assert.equal(ours.extensions.length, other.extensions.length);
    const names = other.getExtension(peculiar.SubjectAlternativeNameExtension)?.names.items ?? [];
    assert.deepEqual(
      ours.uris,
      names.filter(({ type }) => type === 'url').map(({ value }) => value),
    );
    assert.deepEqual(
      ours.dnsNames,
      names.filter(({ type }) => type === 'dns').map(({ value }) => value),
    );
    const constraints = other.getExtension(peculiar.BasicConstraintsExtension);
    assert.equal(ours.hasBasicConstraints, constraints !== null);
    assert.equal(ours.pathLength, constraints?.pathLength);
    assert.equal(ours.keyUsage, other.getExtension(peculiar.KeyUsagesExtension)?.usages);
    const usages = other.getExtension(peculiar.ExtendedKeyUsageExtension)?.usages;
    assert.deepEqual(ours.extendedKeyUsage, usages === undefined ? undefined : [...usages]);
    assert.equal(ours.subjectKeyId?.toString('hex'), other.getExtension(peculiar.SubjectKeyIdentifierExtension)?.keyId);
    assert.equal(
      ours.authorityKeyId?.toString('hex'),
      other.getExtension(peculiar.AuthorityKeyIdentifierExtension)?.keyId,
    );
  });
}

test('an issuer is found by name, key identifier and signature', () => {
  assert.ok(isSignedBy(read('manyNames'), read('p384Root')));
  assert.ok(isSignedBy(read('goLeaf'), read('goRoot')));
  for (const self of ['rsaRoot', 'p384Root', 'ed25519', 'version1', 'constrained', 'pss', 'goRoot'] as const)
    assert.ok(isSignedBy(read(self), read(self)), self);
  assert.ok(!isSignedBy(read('goLeaf'), read('p384Root')));
});

test('CVE-2024-2048 a forged twin with the same name and key identifier did not sign', () => {
  const subject = name([['CN', 'twin']]);
  const real = testAuthority({ now, root: { subject } });
  const forged = testAuthority({ now, root: { subject, more: [] } });
  const leaf = real.issue().certificate;
  assert.ok(isSignedBy(leaf, real.certificate));
  // Even with its identifier replaced by the real one's.
  const masked = { ...forged.certificate, subjectKeyId: real.certificate.subjectKeyId };
  assert.ok(!isSignedBy(leaf, masked));
});

test('an issuer of the same name and key under another key identifier is not the one meant', () => {
  const leaf = ca.issue().certificate;
  assert.ok(!isSignedBy(leaf, { ...ca.certificate, subjectKeyId: Buffer.alloc(20) }));
  assert.ok(isSignedBy(leaf, { ...ca.certificate, subjectKeyId: undefined }));
});

test('an authority is named by its subject key identifier, computed where it carries none', () => {
  assert.equal(authorityId(ca.certificate), ca.certificate.subjectKeyId!.toString('hex'));
  const without = { ...ca.certificate, subjectKeyId: undefined };
  assert.equal(authorityId(without), authorityId(ca.certificate));
});

test('WA-17 certificates that stand back to back are split, and nothing is lost or made up', () => {
  const { chain } = ca.intermediate().issue();
  assert.deepEqual(splitCertificates(Buffer.concat(chain)), chain);
  assert.deepEqual(splitCertificates(Buffer.alloc(0)), []);
  assert.throws(() => splitCertificates(Buffer.concat([...chain, Buffer.of(0x30)])), fault('der/invalid'));
  assert.throws(
    () => splitCertificates(Buffer.concat(Array(certificateLimits.chain + 1).fill(chain[0]))),
    fault('der/invalid', /more than 16/),
  );
});

/** A certificate put together by hand, to be wrong in one place. */
function made(
  parts: {
    version?: Buffer;
    serial?: Buffer;
    inner?: Buffer;
    validity?: Buffer;
    extensions?: Buffer[];
    after?: Buffer[];
    name?: Buffer;
  } = {},
): Buffer {
  const algorithm = sequence(objectId('1.2.840.10045.4.3.2'));
  const subject = parts.name ?? name([['CN', 'x']]);
  const tbs = sequence(
    parts.version ?? tlv(0xa0, integer(2)),
    parts.serial ?? integer(1),
    parts.inner ?? algorithm,
    subject,
    parts.validity ?? sequence(time(now), time(now + 1000)),
    subject,
    ca.certificate.spki,
    tlv(0xa3, sequence(...(parts.extensions ?? [basicConstraints({ ca: false })]))),
    ...(parts.after ?? []),
  );
  return sequence(tbs, algorithm, bitString(Buffer.of(1)));
}
const general = (...names: Buffer[]): Buffer => extension('2.5.29.17', false, sequence(...names));
const text = (kind: number, value: string): Buffer => tlv(kind, Buffer.from(value, 'latin1'));

test('the certificate that the refusals below start from is read', () => {
  assert.equal(parseCertificate(made()).commonName, 'x');
});

const refused: [name: string, der: Buffer, why: RegExp][] = [
  ['bytes after it', Buffer.concat([made(), Buffer.of(0)]), /left over/],
  ['more than 64 KB', Buffer.alloc(certificateLimits.bytes + 1, 0x30), /at most 65536/],
  ['version 1 written out', made({ version: tlv(0xa0, integer(0)) }), /version 1/],
  ['version 2', made({ version: tlv(0xa0, integer(1)) }), /version 2/],
  ['extensions in version 1', made({ version: Buffer.alloc(0) }), /only version 3/],
  ['a negative serial number', made({ serial: Buffer.of(2, 1, 0xff) }), /negative/],
  ['a serial number of 21 bytes', made({ serial: integer(Buffer.alloc(21, 1)) }), /more than 20/],
  [
    'two signature algorithms',
    made({ inner: sequence(objectId('1.2.840.10045.4.3.3')) }),
    /two different signature algorithms/,
  ],
  ['an extension twice', made({ extensions: [keyUsage(1), keyUsage(1)] }), /2\.5\.29\.15 is there twice/],
  ['no extensions in its list', made({ extensions: [] }), /empty/],
  [
    'more extensions than are read',
    made({ extensions: Array.from({ length: 65 }, (_, arc) => extension(`1.2.3.${arc}`, false, Buffer.of(5, 0))) }),
    /more than 64/,
  ],
  [
    'a criticality of FALSE written out',
    made({ extensions: [sequence(objectId('1.2.3'), boolean(false), octetString())] }),
    /FALSE/,
  ],
  [
    'X509-12 a CA bit of FALSE written out',
    made({ extensions: [extension('2.5.29.19', true, sequence(boolean(false)))] }),
    /FALSE/,
  ],
  [
    'a path length without being a CA',
    made({ extensions: [extension('2.5.29.19', true, sequence(integer(1)))] }),
    /without being a CA/,
  ],
  ['an empty key usage', made({ extensions: [keyUsage(0)] }), /empty/],
  ['an empty extended key usage', made({ extensions: [extension('2.5.29.37', false, sequence())] }), /empty/],
  ['an empty alternative name', made({ extensions: [general()] }), /empty/],
  ['an alternative name of no known kind', made({ extensions: [general(text(0x89, 'a'))] }), /no known kind/],
  ['a NUL in a URI', made({ extensions: [general(text(0x86, 'spiffe://example.org/a\0b'))] }), /printable ASCII/],
  ['a newline in a DNS name', made({ extensions: [general(text(0x82, 'a\nb'))] }), /printable ASCII/],
  ['a DNS name that is not ASCII', made({ extensions: [general(text(0x82, 'é'))] }), /printable ASCII/],
  ['an IP address of five bytes', made({ extensions: [general(tlv(0x87, Buffer.alloc(5)))] }), /5 bytes/],
  ['more names than are read', made({ extensions: [general(...Array(1025).fill(text(0x82, 'a')))] }), /more than 1024/],
  ['something after its extensions', made({ after: [integer(1)] }), /left over/],
  ['a name with an empty part', made({ name: sequence(tlv(0x31)) }), /part of a name is empty/],
  [
    'a CN that is not UTF-8',
    made({ name: sequence(tlv(0x31, sequence(objectId('2.5.4.3'), tlv(0x0c, Buffer.of(0xff))))) }),
    /not UTF-8/,
  ],
  [
    'an empty subject key identifier',
    made({ extensions: [extension('2.5.29.14', false, octetString())] }),
    /key identifier/,
  ],
  ['empty name constraints', made({ extensions: [extension('2.5.29.30', true, sequence())] }), /constraints are empty/],
];
for (const [what, der, why] of refused) {
  test(`refuses ${what}`, () => {
    assert.throws(() => parseCertificate(der), fault('der/invalid', why));
  });
}

test('X509-24 an extension that is not understood is remembered when it is critical', () => {
  const parsed = parseCertificate(
    made({ extensions: [extension('1.2.3.4', true, Buffer.of(5, 0)), extension('1.2.3.5', false, Buffer.of(5, 0))] }),
  );
  assert.deepEqual(parsed.unknownCritical, ['1.2.3.4']);
  assert.equal(parsed.extensions.length, 2);
});

test('CVE-2022-21656 names of other kinds never pass for a URI or a DNS name', () => {
  const parsed = parseCertificate(
    made({
      extensions: [
        general(text(0x81, 'spiffe://example.org/a'), tlv(0x87, Buffer.alloc(4)), text(0x82, 'spiffe://example.org/b')),
      ],
    }),
  );
  assert.deepEqual(parsed.uris, []);
  assert.deepEqual(parsed.dnsNames, ['spiffe://example.org/b']);
  assert.deepEqual(parsed.otherNames, [0x81, 0x87]);
});

test('key usage is read bit by bit, with its criticality', () => {
  const { certificate } = ca.issue({
    keyUsage: KeyUsage.digitalSignature | KeyUsage.decipherOnly,
    keyUsageCritical: false,
  });
  assert.equal(certificate.keyUsage, KeyUsage.digitalSignature | KeyUsage.decipherOnly);
  assert.equal(certificate.keyUsageCritical, false);
});

test('CVE-2026-40097 CVE-2025-49825 damaged certificates: nothing but Faults, and what is read is the one encoding of what it says', () => {
  fc.assert(
    fc.property(mutated([...seeds, ca.der, ca.issue({ dnsNames: ['a.example.org'] }).der]), (der) => {
      try {
        const parsed = parseCertificate(der);
        assert.deepEqual(sequence(parsed.tbs, parsed.signatureAlgorithm, bitString(parsed.signature)), der);
        assert.ok(parsed.publicKey !== undefined);
        assert.equal(typeof isSignedBy(parsed, parsed), 'boolean');
      } catch (error) {
        assert.ok(error instanceof Fault && error.code === 'der/invalid', String(error));
      }
    }),
    { numRuns: 3000 },
  );
});
