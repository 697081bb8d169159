import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyUsage, parseCertificate } from '../../../src/crypto/certificate.ts';
import { name } from '../../../src/crypto/certificate-writer.ts';
import { authorityCertificate, checkLeaf, lintX509Svid, verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { type CertificateWishes, testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';

const now = Date.UTC(2030, 0, 1);
const ca = testAuthority({ now });
const bundle = ca.bundle();

test('X509-1 X509-26 a chain verifies to the ID of its leaf, given a bundle or where to find it', () => {
  for (const { chain } of [ca.issue(), ca.intermediate().issue()]) {
    const verified = verifyX509Svid(chain, bundle, now);
    assert.equal(verified.id, 'spiffe://example.org/workload');
    assert.deepEqual(verified.leaf.der, chain[0]);
    assert.equal(verified.path.length, chain.length + 1);
    assert.equal(
      verifyX509Svid(chain, (domain) => (domain === 'example.org' ? bundle : undefined), now).id,
      verified.id,
    );
  }
});

test('X509-3 names of other kinds are allowed beside the one URI', () => {
  assert.equal(checkLeaf(ca.issue({ dnsNames: ['a', 'b'] }).certificate), 'spiffe://example.org/workload');
});

test('X509-7 an authority without an ID, or with a SPIFFE ID and a slash, is no hindrance', () => {
  const plain = testAuthority({ now, root: { uris: [] } });
  assert.ok(verifyX509Svid(plain.issue().chain, plain.bundle(), now));
  const slash = testAuthority({ now, root: { uris: ['spiffe://example.org/'] } });
  assert.ok(verifyX509Svid(slash.issue().chain, slash.bundle(), now));
});

const leaves: [name: string, wishes: CertificateWishes, why: RegExp][] = [
  ['X509-2 two SPIFFE IDs', { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] }, /2 URI names/],
  ['X509-2 the same ID twice', { uris: ['spiffe://example.org/a', 'spiffe://example.org/a'] }, /2 URI names/],
  ['X509-2 another URI beside the ID', { uris: ['spiffe://example.org/a', 'https://example.org'] }, /2 URI names/],
  ['X509-1 no URI', { uris: [], dnsNames: ['spiffe://example.org/a'] }, /no URI name/],
  ['X509-26 a URI that is no SPIFFE ID', { uris: ['https://example.org/a'] }, /does not begin with/],
  ['X509-26 an ID without a path', { uris: ['spiffe://example.org'] }, /no path/],
  ['X509-26 an ID whose path is a slash', { uris: ['spiffe://example.org/'] }, /empty segment/],
  ['X509-11 X509-25 a CA bit', { ca: true, keyUsage: KeyUsage.digitalSignature }, /certificate authority/],
  ['X509-25 keyCertSign', { keyUsage: KeyUsage.digitalSignature | KeyUsage.keyCertSign }, /may sign certificates/],
  ['X509-25 cRLSign', { keyUsage: KeyUsage.digitalSignature | KeyUsage.cRLSign }, /may sign certificates/],
  ['X509-15 no key usage', { keyUsage: null }, /nothing of its key usage/],
  ['X509-18 no digitalSignature', { keyUsage: KeyUsage.keyEncipherment }, /digital signatures/],
];
for (const [what, wishes, why] of leaves) {
  test(`refuses a leaf with ${what}`, () => {
    const { certificate, chain } = ca.issue(wishes);
    assert.throws(() => checkLeaf(certificate), fault('svid/invalid', why));
    assert.throws(() => verifyX509Svid(chain, bundle, now), fault('svid/invalid', why));
  });
}

test('ID-17 Teleport 13.4.4 an authority vouches for its own trust domain only, whatever bundle is offered', () => {
  const other = testAuthority({ now, trustDomain: 'other.org' });
  const foreign = other.issue({ id: 'spiffe://example.org/workload' });
  assert.throws(() => verifyX509Svid(foreign.chain, bundle, now), fault('svid/invalid', /does not chain/));
  assert.throws(
    () => verifyX509Svid(foreign.chain, other.bundle(), now),
    fault('svid/invalid', /no bundle of its trust domain "example\.org"/),
  );
  // A finder that answers with another domain's bundle is not believed either.
  assert.throws(() => verifyX509Svid(foreign.chain, () => other.bundle(), now), fault('svid/invalid', /no bundle/));
  assert.throws(() => verifyX509Svid(ca.issue().chain, () => undefined, now), fault('svid/invalid', /no bundle/));
});

test('X509-33 TB-9 a bundle without X.509 authorities verifies nothing', () => {
  assert.throws(
    () => verifyX509Svid(ca.issue().chain, ca.bundle({ x509Authorities: [] }), now),
    fault('svid/invalid', /holds no X\.509 authority/),
  );
});

test('an authority that cannot be read is passed over, and the others count', () => {
  const broken = { certificate: Buffer.from('junk'), tainted: false };
  assert.equal(authorityCertificate(broken), undefined);
  assert.ok(verifyX509Svid(ca.issue().chain, ca.bundle({ x509Authorities: [broken, ...bundle.x509Authorities] }), now));
});

test('a leaf that was put among the authorities does not vouch for itself', () => {
  const svid = ca.issue();
  const bad = ca.bundle({ x509Authorities: [{ certificate: svid.der, tainted: false }] });
  assert.throws(() => verifyX509Svid(svid.chain, bad, now), fault('svid/invalid'));
});

test('no chain, too long a chain, and bytes that are no certificate are refused', () => {
  assert.throws(() => verifyX509Svid([], bundle, now), fault('svid/invalid', /empty/));
  const { chain } = ca.issue();
  assert.throws(() => verifyX509Svid(Array(17).fill(chain[0]), bundle, now), fault('svid/invalid', /17 certificates/));
  assert.throws(() => verifyX509Svid([...chain, Buffer.from('junk')], bundle, now), fault('der/invalid'));
});

test('X509-5 X509-16 X509-20 X509-22 the lint passes what is as it must be', () => {
  assert.deepEqual(lintX509Svid(ca.certificate), []);
  assert.deepEqual(lintX509Svid(ca.intermediate().certificate), []);
  assert.deepEqual(lintX509Svid(ca.issue({ dnsNames: ['a'] }).certificate), []);
  assert.deepEqual(lintX509Svid(ca.issue({ subject: name([]), sanCritical: true }).certificate), []);
});

const lints: [id: string, wishes: CertificateWishes][] = [
  ['X509-1', { uris: ['spiffe://example.org/a', 'spiffe://example.org/b'] }],
  ['X509-1', { uris: ['https://example.org'] }],
  ['X509-4', { uris: ['spiffe://example.org'] }],
  ['X509-5', { subject: name([]) }],
  ['X509-6', { ca: true, id: 'spiffe://example.org', basicConstraints: false }],
  ['X509-8', { ca: true, id: 'spiffe://example.org/a' }],
  ['X509-12', { basicConstraints: false }],
  ['X509-15', { keyUsage: null }],
  ['X509-15', { keyUsageCritical: false }],
  ['X509-16', { ca: true, id: 'spiffe://example.org', keyUsage: KeyUsage.cRLSign }],
  ['X509-18', { keyUsage: KeyUsage.keyAgreement }],
  ['X509-20', { keyUsage: KeyUsage.digitalSignature | KeyUsage.keyCertSign }],
  ['X509-21', { extendedKeyUsage: null }],
  ['X509-22', { extendedKeyUsage: ['serverAuth'] }],
  ['X509-32', { ca: true, id: 'spiffe://example.org', keyUsage: KeyUsage.keyCertSign | KeyUsage.digitalSignature }],
];
for (const [id, wishes] of lints) {
  test(`${id} the lint names what is wrong: ${JSON.stringify(wishes)}`, () => {
    const problems = lintX509Svid(parseCertificate(ca.issue(wishes).der));
    // Without basic constraints an authority looks like a leaf.
    const expected = id === 'X509-6' ? 'X509-12' : id;
    assert.ok(
      problems.some((problem) => problem.startsWith(`${expected}:`)),
      problems.join('; '),
    );
  });
}
