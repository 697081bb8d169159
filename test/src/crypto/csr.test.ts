import 'reflect-metadata';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import * as peculiar from '@peculiar/x509';
import fc from 'fast-check';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { extension, name, subjectAltName } from '../../../src/crypto/certificate-writer.ts';
import { makeCsr, parseCsr } from '../../../src/crypto/csr.ts';
import {
  bitString,
  boolean,
  context,
  derCursor,
  integer,
  objectId,
  octetString,
  open,
  sequence,
  set,
  tag,
  takeElement,
} from '../../../src/crypto/der.ts';
import { Fault } from '../../../src/errors.ts';
import { fault } from '../../support/fault.ts';
import { mutated } from '../../support/mutate.ts';
import { requests } from './corpus.ts';

const pair = generateKey('ec-p256');
const seeds = Object.values(requests).map((text) => Buffer.from(text, 'base64'));

/** What the installed openssl says of a request's signature; undefined where there is none. */
function opensslVerifies(der: Buffer): boolean | undefined {
  const ran = spawnSync('openssl', ['req', '-inform', 'der', '-verify', '-noout'], { input: der });
  return ran.error === undefined
    ? ran.status === 0 && /verify OK/.test(String(ran.stderr) + String(ran.stdout))
    : undefined;
}

for (const [which, text] of Object.entries(requests)) {
  test(`reads and verifies the request ${which}, as OpenSSL and @peculiar/x509 do`, async () => {
    const der = Buffer.from(text, 'base64');
    const csr = parseCsr(der);
    const other = new peculiar.Pkcs10CertificateRequest(der);
    assert.ok(csr.verify());
    assert.ok(await other.verify());
    assert.notEqual(opensslVerifies(der), false);
    assert.deepEqual(csr.spki, Buffer.from(other.publicKey.rawData));
    assert.deepEqual(csr.subject, Buffer.from(other.subjectName.toArrayBuffer()));
    assert.equal(csr.commonName, other.subjectName.getField('CN')[0]);
    const wished =
      other.extensions.find((found) => found instanceof peculiar.SubjectAlternativeNameExtension)?.names.items ?? [];
    assert.deepEqual(
      csr.uris,
      wished.filter(({ type }) => type === 'url').map(({ value }) => value),
    );
    assert.deepEqual(
      csr.dnsNames,
      wished.filter(({ type }) => type === 'dns').map(({ value }) => value),
    );
  });
}

for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`a ${type} request that is made is read back, by OpenSSL too`, () => {
    const der = makeCsr(generateKey(type).privateKey, {
      uri: 'spiffe://example.org/a',
      dnsNames: ['a', 'b.example.org'],
    });
    const csr = parseCsr(der);
    assert.ok(csr.verify());
    assert.deepEqual([csr.uris, csr.dnsNames], [['spiffe://example.org/a'], ['a', 'b.example.org']]);
    assert.deepEqual(
      csr.subject,
      name([
        ['C', 'US'],
        ['O', 'SPIRE'],
      ]),
    );
    assert.notEqual(opensslVerifies(der), false);
  });
}

test('a request for nothing has no names', () => {
  const csr = parseCsr(makeCsr(pair.privateKey));
  assert.ok(csr.verify());
  assert.deepEqual([csr.uris, csr.dnsNames], [[], []]);
});

test('a request whose key was put in the place of another does not verify', () => {
  const other = generateKey('ec-p256').publicKey.export({ format: 'der', type: 'spki' });
  const der = makeCsr(pair.privateKey, { uri: 'spiffe://example.org/a' });
  const at = der.indexOf(pair.publicKey.export({ format: 'der', type: 'spki' }));
  assert.ok(at > 0);
  other.copy(der, at);
  assert.equal(parseCsr(der).verify(), false);
});

/** A request put together by hand, signed rightly, to be wrong in one place. */
function made(
  parts: { version?: Buffer; attributes?: Buffer[]; key?: typeof pair; after?: Buffer; algorithm?: Buffer } = {},
): Buffer {
  const { privateKey, publicKey } = parts.key ?? pair;
  const info = sequence(
    parts.version ?? integer(0),
    name([['CN', 'x']]),
    publicKey.export({ format: 'der', type: 'spki' }),
    context(0, parts.attributes ?? []),
  );
  const hash = privateKey.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  return Buffer.concat([
    sequence(
      info,
      parts.algorithm ?? sequence(objectId('1.2.840.10045.4.3.2')),
      bitString(sign(hash, info, privateKey)),
    ),
    parts.after ?? Buffer.alloc(0),
  ]);
}
const wish = (...extensions: Buffer[]): Buffer =>
  sequence(objectId('1.2.840.113549.1.9.14'), set(sequence(...extensions)));
const san = subjectAltName({ uris: ['spiffe://example.org/a'] });

const refused: [name: string, der: () => Buffer, why: RegExp][] = [
  ['bytes after it', () => made({ after: Buffer.of(0) }), /left over/],
  ['more than 16 KB', () => Buffer.alloc(16_385, 0x30), /at most 16384/],
  ['another version', () => made({ version: integer(1) }), /version/],
  ['extensions asked for twice', () => made({ attributes: [wish(san), wish(san)] }), /asks for extensions twice/],
  ['an extension twice', () => made({ attributes: [wish(san, san)] }), /twice/],
  [
    'a criticality of FALSE written out',
    () => made({ attributes: [wish(sequence(objectId('1.2.3'), boolean(false), octetString()))] }),
    /FALSE/,
  ],
  [
    'two sets of extensions in one attribute',
    () => made({ attributes: [sequence(objectId('1.2.840.113549.1.9.14'), set(sequence(san), sequence()))] }),
    /left over|expected/,
  ],
  [
    'more attributes than are read',
    () => made({ attributes: Array.from({ length: 17 }, (_, arc) => sequence(objectId(`1.2.3.${arc}`), set())) }),
    /more than 16 attributes/,
  ],
  [
    'more extensions than are read',
    () =>
      made({
        attributes: [
          wish(...Array.from({ length: 65 }, (_, arc) => extension(`1.2.3.${arc}`, false, Buffer.alloc(0)))),
        ],
      }),
    /more than 64/,
  ],
  ['an Ed25519 key', () => made({ key: generateKeyPairSync('ed25519') }), /neither EC P-256 or P-384 nor RSA/],
  ['a P-521 key', () => made({ key: generateKeyPairSync('ec', { namedCurve: 'P-521' }) }), /neither EC/],
  ['a key on another curve', () => made({ key: generateKeyPairSync('ec', { namedCurve: 'secp256k1' }) }), /curve/],
  [
    'an RSA key of 1024 bits',
    () => made({ key: generateKeyPairSync('rsa', { modulusLength: 1024 }) }),
    /1024 bits; 2048 to 4096/,
  ],
];
for (const [what, der, why] of refused) {
  test(`refuses ${what}`, () => {
    assert.throws(() => parseCsr(der()), fault('der/invalid', why));
  });
}

test("the largest RSA key is the caller's to choose", () => {
  const key = generateKeyPairSync('rsa', { modulusLength: 3072 });
  const der = makeCsr(generateKey('rsa-2048').privateKey);
  assert.throws(() => parseCsr(made({ key }), { maxRsaBits: 2048 }), fault('der/invalid', /3072 bits; 2048 to 2048/));
  assert.ok(parseCsr(der, { maxRsaBits: 2048 }).verify());
});

test('several and odd URI names come out as they are: which are granted is not for the reader to say', () => {
  for (const uris of [
    ['spiffe://example.org/a', 'spiffe://example.org/b'],
    ['spiffe://example.org/a', 'spiffe://example.org/a'],
    ['https://example.org/a'],
  ]) {
    assert.deepEqual(parseCsr(made({ attributes: [wish(subjectAltName({ uris }))] })).uris, uris);
  }
});

test('an algorithm that is not for the key verifies nothing', () => {
  for (const id of ['1.2.840.10045.4.1', '1.2.840.113549.1.1.11', '1.2.840.10045.4.3.3'])
    assert.equal(parseCsr(made({ algorithm: sequence(objectId(id)) })).verify(), false);
});

/** What a request's signature is over. */
const infoOf = (der: Buffer): Buffer => takeElement(open(derCursor(der, 'request'), tag.sequence));

test('damaged requests: nothing but Faults, and none verifies that was not the original', () => {
  const originals = [...seeds, makeCsr(pair.privateKey, { uri: 'spiffe://example.org/a', dnsNames: ['a'] })];
  fc.assert(
    fc.property(mutated(originals), (der) => {
      if (originals.some((original) => original.equals(der))) return;
      try {
        const csr = parseCsr(der);
        const verified = csr.verify();
        if (verified) assert.ok(originals.some((original) => infoOf(original).equals(infoOf(der))));
      } catch (error) {
        assert.ok(error instanceof Fault && error.code === 'der/invalid', String(error));
      }
    }),
    { numRuns: 1500 },
  );
});

test('damaged requests that are read and verify here verify by OpenSSL too', () => {
  fc.assert(
    fc.property(mutated(seeds), (der) => {
      let verified = false;
      try {
        verified = parseCsr(der).verify();
      } catch {
        return;
      }
      if (verified) assert.notEqual(opensslVerifies(der), false);
    }),
    { numRuns: 300 },
  );
});
