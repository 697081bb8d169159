/** What is issued, for every type of key: linted against the standard, verified, and compared with what was asked. */
import assert from 'node:assert/strict';
import { createPublicKey, hash } from 'node:crypto';
import { test } from 'node:test';
import { x509Kind } from '../../../server/authority/x509.ts';
import { nameText } from '../../../server/issue/subject.ts';
import { issueDownstreamCa, issueX509Svid } from '../../../server/issue/x509.ts';
import { generateKey, type KeyType, keyTypes } from '../../../src/crypto/algorithms.ts';
import { KeyUsage, parseCertificate } from '../../../src/crypto/certificate.ts';
import { keyIdOf, name } from '../../../src/crypto/certificate-writer.ts';
import { newSerial } from '../../../src/crypto/serial.ts';
import { Fault } from '../../../src/errors.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { lintX509Svid, verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { id, td } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1);
const day = 24 * 3_600_000;
const types = Object.keys(keyTypes) as KeyType[];

async function authority(
  type: KeyType = 'ec-p256',
  subject = { country: ['US'], organization: ['SPIFFE'], commonName: '' },
) {
  const kind = x509Kind(td, subject, day, systemRandom);
  const key = await memoryKeys().generate('ca', type);
  const slot = { ...(await kind.make(key, now)), keyId: 'ca', tainted: false };
  const der = Buffer.from(slot.material, 'base64');
  const bundle = { trustDomain: td, x509Authorities: [{ certificate: der, tainted: false }] } as unknown as Bundle;
  return { slot, certificate: parseCertificate(der), signer: kind.signer(slot, key), bundle };
}
const made = new Map<KeyType, Buffer>();
/** One key of each type is enough: it takes seconds to make a large one. */
function spkiOf(type: KeyType = 'ec-p256'): Buffer {
  const spki = made.get(type) ?? generateKey(type).publicKey.export({ format: 'der', type: 'spki' });
  made.set(type, spki);
  return spki;
}
const authorities = new Map<KeyType, ReturnType<typeof authority>>();
function authorityOf(type: KeyType): ReturnType<typeof authority> {
  const held = authorities.get(type) ?? authority(type);
  authorities.set(type, held);
  return held;
}
const profile = { id: id('/web'), ttl: 3_600_000, dnsNames: [] as string[] };

for (const type of types) {
  test(`ID-13 ID-14 X509-6 X509-7 X509-8 X509-9 X509-15 X509-16 X509-29 X509-32 an authority with a key of type ${type} is as it must be`, async () => {
    const { certificate, slot } = await authorityOf(type);
    assert.deepEqual(lintX509Svid(certificate), []);
    assert.ok(certificate.isCa && certificate.pathLength === undefined);
    assert.deepEqual(certificate.uris, ['spiffe://example.org']);
    assert.equal(certificate.keyUsage, KeyUsage.keyCertSign | KeyUsage.cRLSign);
    assert.ok(certificate.issuer.equals(certificate.subject), 'self-signed');
    assert.equal(nameText(certificate.subject), `SERIALNUMBER=${certificate.serial},O=SPIFFE,C=US`);
    assert.equal(slot.id, keyIdOf(certificate.spki).toString('hex'));
    assert.deepEqual([certificate.notBefore, certificate.notAfter], [now - 10_000, now + day]);
  });

  test(`ID-15 X509-1 X509-4 X509-12 X509-15 X509-18 X509-19 X509-20 X509-21 X509-22 an SVID by a ${type} authority is as it must be`, async () => {
    const { signer, bundle, slot } = await authorityOf(type);
    for (const leafType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
      const spki = spkiOf(leafType);
      const { chain, notBefore, notAfter, serial } = await issueX509Svid(
        signer,
        { ...profile, spki },
        now,
        systemRandom,
      );
      const { leaf, path } = verifyX509Svid(chain, bundle, now);
      assert.deepEqual(lintX509Svid(leaf), []);
      assert.deepEqual([path.length, chain.length], [2, 1], 'the root is not sent');
      assert.deepEqual([leaf.uris, leaf.dnsNames], [['spiffe://example.org/web'], []]);
      assert.ok(leaf.spki.equals(spki));
      assert.equal(nameText(leaf.subject), 'O=SPIRE,C=US');
      assert.equal(leaf.authorityKeyId?.toString('hex'), slot.id);
      assert.equal(leaf.subjectKeyId?.toString('hex'), keyIdOf(spki).toString('hex'));
      assert.deepEqual([leaf.notBefore, leaf.notAfter], [now - 10_000, now + 3_600_000]);
      assert.deepEqual([notBefore, notAfter, serial], [leaf.notBefore, leaf.notAfter, leaf.serial.toString()]);
    }
  });
}

test('X509-3 DNS names are carried, the first as the common name too, in the place of any other', async () => {
  const { signer } = await authority();
  const subject = name([
    ['C', 'SE'],
    ['O', 'Acme'],
    ['CN', 'asked for'],
  ]);
  const issue = async (more: object) =>
    parseCertificate(
      (await issueX509Svid(signer, { ...profile, spki: spkiOf(), ...more }, now, systemRandom)).chain[0]!,
    );
  const named = await issue({ dnsNames: ['web.example.org', '*.example.net'], subject });
  assert.deepEqual(
    [named.dnsNames, nameText(named.subject)],
    [['web.example.org', '*.example.net'], 'CN=web.example.org,O=Acme,C=SE'],
  );
  assert.deepEqual(lintX509Svid(named), []);
  assert.equal(nameText((await issue({ subject })).subject), 'CN=asked for,O=Acme,C=SE');
  assert.equal(
    nameText((await issue({ subject: Buffer.of(0x30, 0) })).subject),
    'O=SPIRE,C=US',
    'an empty one is none',
  );
  assert.deepEqual(lintX509Svid(await issue({ subject: Buffer.of(0x30, 0) })), []);
});

test('an SVID never outlives its authority, and an expired one issues nothing', async () => {
  const { signer, certificate } = await authority();
  const long = await issueX509Svid(signer, { ...profile, spki: spkiOf(), ttl: 1e12 }, now, systemRandom);
  assert.equal(long.notAfter, certificate.notAfter);
  for (const late of [certificate.notAfter, certificate.notAfter + 1000]) {
    await assert.rejects(
      issueX509Svid(signer, { ...profile, spki: spkiOf() }, late, systemRandom),
      (error) => error instanceof Fault && error.code === 'state/refused' && error.hint !== undefined,
    );
  }
});

test('X509-10 a downstream authority: of this trust domain, below this one, and no leaf', async () => {
  const { signer, certificate, bundle } = await authority();
  const spki = spkiOf();
  const { chain } = await issueDownstreamCa(signer, { trustDomain: td, spki, ttl: 2 * day }, now, systemRandom);
  const ca = parseCertificate(chain[0]!);
  assert.deepEqual(lintX509Svid(ca), []);
  assert.deepEqual([ca.isCa, ca.uris, ca.notAfter], [true, ['spiffe://example.org'], certificate.notAfter]);
  const unit = `DOWNSTREAM-${hash('sha256', spki).slice(0, 16)}`;
  assert.equal(nameText(ca.subject), `OU=${unit},${nameText(certificate.subject)}`);
  assert.throws(() => verifyX509Svid(chain, bundle, now), /names a trust domain|certificate authority/, 'X509-11');
});

test('serial numbers are positive, of 16 bytes, and never the same', () => {
  const serials = new Set<string>();
  for (let count = 0; count < 1000; count++) {
    const serial = newSerial(systemRandom);
    assert.ok(serial.length === 16 && serial[0]! > 0 && serial[0]! < 0x80);
    serials.add(serial.toString('hex'));
  }
  assert.equal(serials.size, 1000);
  const extreme = (byte: number) => newSerial({ ...systemRandom, bytes: (length) => Buffer.alloc(length, byte) });
  assert.deepEqual([extreme(0)[0], extreme(255)[0]], [0x40, 0x7f]);
});

test('two authorities made in the same moment have different names, keys and ids', async () => {
  const [one, two] = [await authority(), await authority()];
  assert.ok(!one.certificate.subject.equals(two.certificate.subject));
  assert.notEqual(one.slot.id, two.slot.id);
});

test('the configured subject of an authority is its own, a common name too', async () => {
  const subject = { country: ['SE', 'NO'], organization: ['Acme, "the" one'], commonName: 'Root' };
  const { certificate } = await authority('ec-p256', subject);
  assert.match(nameText(certificate.subject), /^SERIALNUMBER=\d+,CN=Root,O=Acme\\, \\"the\\" one,C=NO,C=SE$/);
  assert.equal(createPublicKey({ key: certificate.spki, format: 'der', type: 'spki' }).asymmetricKeyType, 'ec');
});
