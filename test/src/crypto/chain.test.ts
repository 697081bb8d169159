import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Certificate, KeyUsage, parseCertificate } from '../../../src/crypto/certificate.ts';
import { extension, name } from '../../../src/crypto/certificate-writer.ts';
import { verifyChain } from '../../../src/crypto/chain.ts';
import { context, sequence, tlv } from '../../../src/crypto/der.ts';
import { type TestAuthority, testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { certificates } from './corpus.ts';

const now = Date.UTC(2030, 0, 1);
const day = 86_400_000;
const ca = testAuthority({ now });
const rest = (chain: readonly Buffer[]): Certificate[] => chain.slice(1).map(parseCertificate);
const verify = (from: TestAuthority, wishes = {}, at = now): Certificate[] => {
  const { certificate, chain } = from.issue(wishes);
  return verifyChain(certificate, rest(chain), [ca.certificate], at);
};

test('X509-24 a path is found through any number of intermediates, in whatever order they are sent', () => {
  assert.equal(verify(ca).length, 2);
  const svid = ca.intermediate().intermediate().issue();
  for (const order of [rest(svid.chain), rest(svid.chain).reverse(), [...rest(svid.chain), ca.certificate]]) {
    const path = verifyChain(svid.certificate, order, [ca.certificate], now);
    assert.deepEqual(
      path.map(({ serial }) => serial),
      [...svid.chain, ca.der].map((der) => parseCertificate(der).serial),
    );
  }
});

test('chains made by OpenSSL and Go verify', () => {
  const read = (which: keyof typeof certificates): Certificate =>
    parseCertificate(Buffer.from(certificates[which], 'base64'));
  assert.equal(verifyChain(read('manyNames'), [], [read('p384Root')], now).length, 2);
  assert.equal(verifyChain(read('goLeaf'), [], [read('goRoot')], now).length, 2);
});

test('an anchor need not have signed itself', () => {
  const middle = ca.intermediate();
  const { certificate } = middle.issue();
  assert.equal(verifyChain(certificate, [], [middle.certificate], now).length, 2);
});

test('validity includes its first and its last second, and no more', () => {
  const [notBefore, notAfter] = [now - 5000, now + 5000];
  for (const at of [notBefore, notAfter, notAfter + 999])
    assert.equal(verify(ca, { notBefore, notAfter }, at).length, 2);
  assert.throws(
    () => verify(ca, { notBefore, notAfter }, notBefore - 1),
    fault('svid/invalid', /not valid before 2029-12-31T23:59:55/),
  );
  assert.throws(
    () => verify(ca, { notBefore, notAfter }, notAfter + 1000),
    fault('svid/invalid', /expired at 2030-01-01T00:00:05/),
  );
});

const refused: [name: string, path: () => unknown, why: RegExp][] = [
  [
    'an expired intermediate',
    () => verify(ca.intermediate({ notBefore: now - day, notAfter: now - 1000 })),
    /an intermediate certificate: it expired/,
  ],
  [
    'an expired authority',
    () => verify(ca, { notBefore: now, notAfter: now + 9 * day }, now + 2 * day),
    /its authority: it expired/,
  ],
  ['an intermediate that is no CA', () => verify(ca.intermediate({ ca: false })), /not a certificate authority/],
  [
    'an intermediate without basic constraints',
    () => verify(ca.intermediate({ basicConstraints: false })),
    /not a certificate authority/,
  ],
  [
    'an intermediate that may not sign certificates',
    () => verify(ca.intermediate({ keyUsage: KeyUsage.cRLSign })),
    /may not sign certificates/,
  ],
  [
    'a path length that is exceeded',
    () => verify(ca.intermediate({ pathLength: 0 }).intermediate()),
    /allows 0 certificate authorities below itself, and there are 1/,
  ],
  [
    'a critical extension nobody understands on the leaf',
    () => verify(ca, { more: [extension('1.2.3', true, Buffer.of(5, 0))] }),
    /critical extension 1\.2\.3/,
  ],
  [
    'the same on an intermediate',
    () => verify(ca.intermediate({ more: [extension('1.2.3', true, Buffer.of(5, 0))] })),
    /critical extension 1\.2\.3/,
  ],
  ['an unknown authority', () => verify(testAuthority({ now })), /does not chain to an authority/],
  [
    'an authority of the same name with another key',
    () => {
      const subject = name([['CN', 'same']]);
      const real = testAuthority({ now, root: { subject } });
      const other = testAuthority({ now, root: { subject } });
      // Without identifiers only the signature tells them apart.
      const bare = { ...other.certificate, subjectKeyId: undefined };
      return verifyChain(real.issue().certificate, [], [bare], now);
    },
    /signature on its chain does not verify/,
  ],
  [
    'more intermediates than are read',
    () => verifyChain(ca.issue().certificate, Array(16).fill(ca.certificate), [ca.certificate], now),
    /more than 16/,
  ],
];
for (const [what, path, why] of refused) {
  test(`X509-24 refuses ${what}`, () => {
    assert.throws(path, fault('svid/invalid', why));
  });
}

test('X509-13 a path length of 0 still allows a leaf', () => {
  assert.equal(verify(ca.intermediate({ pathLength: 0 })).length, 3);
});

test('a signature changed in one bit is refused', () => {
  const { der } = ca.issue();
  const changed = Buffer.from(der);
  changed[changed.length - 1]! ^= 1;
  assert.throws(
    () => verifyChain(parseCertificate(changed), [], [ca.certificate], now),
    fault('svid/invalid', /does not verify/),
  );
});

test('an intermediate that expired does not hide another that leads to the same authority', () => {
  const subject = name([['CN', 'middle']]);
  const old = ca.intermediate({ subject, notBefore: now - day, notAfter: now - 1000 });
  const fresh = ca.intermediate({ subject });
  const leaf = fresh.issue().certificate;
  const masked = { ...old.certificate, subjectKeyId: undefined };
  assert.equal(verifyChain(leaf, [masked, fresh.certificate], [ca.certificate], now).length, 3);
});

test('certificates that go round in a circle end', () => {
  const [a, b] = [testAuthority({ now }), testAuthority({ now })];
  const cross = (by: TestAuthority, of: TestAuthority): Certificate =>
    by.issue({ ca: true, publicKey: of.key.publicKey, subject: of.certificate.subject, notAfter: now + day })
      .certificate;
  const circle = [cross(a, b), cross(b, a), a.certificate, b.certificate];
  assert.throws(
    () => verifyChain(a.issue().certificate, circle, [ca.certificate], now),
    fault('svid/invalid', /does not chain/),
  );
});

test('intermediates that double the paths at each step cost a bounded number of signatures', () => {
  let top = testAuthority({ now });
  const crowd: Certificate[] = [];
  let checked = 0;
  for (let layer = 0; layer < 7; layer++) {
    const below = top.intermediate();
    const twin = top.issue({
      ca: true,
      publicKey: below.key.publicKey,
      subject: below.certificate.subject,
      notAfter: now + day,
    });
    crowd.push(below.certificate, twin.certificate);
    top = below;
  }
  for (const certificate of crowd) {
    const { publicKey } = certificate;
    Object.defineProperty(certificate, 'publicKey', {
      get() {
        checked++;
        return publicKey;
      },
    });
  }
  assert.throws(
    () => verifyChain(top.issue().certificate, crowd, [ca.certificate], now),
    fault('svid/invalid', /too many signatures/),
  );
  assert.equal(checked, 48);
});

const subtree = (kind: number, base: string): Buffer => sequence(tlv(kind, Buffer.from(base)));
const constrained = (permitted: Buffer[], excluded: Buffer[] = []): TestAuthority =>
  ca.intermediate({
    more: [
      extension(
        '2.5.29.30',
        true,
        sequence(
          ...(permitted.length > 0 ? [context(0, permitted)] : []),
          ...(excluded.length > 0 ? [context(1, excluded)] : []),
        ),
      ),
    ],
  });
const uri = (base: string): Buffer => subtree(0x86, base);
const dns = (base: string): Buffer => subtree(0x82, base);

test('X509-14 name constraints on URIs and DNS names are kept, on every certificate below', () => {
  assert.equal(verify(constrained([uri('example.org')])).length, 3);
  assert.equal(verify(constrained([uri('.org')])).length, 3);
  assert.equal(verify(constrained([uri('example.org')], [uri('other.org')])).length, 3);
  assert.equal(verify(constrained([dns('example.org')]), { dnsNames: ['a.example.org', 'EXAMPLE.org'] }).length, 3);
  assert.equal(verify(constrained([dns('example.org')]).intermediate()).length, 4);
  for (const [from, wishes] of [
    [constrained([uri('other.org')]), {}],
    [constrained([uri('.example.org')]), {}],
    [constrained([], [uri('example.org')]), {}],
    [constrained([], [uri('')]), {}],
    [constrained([dns('example.org')]), { dnsNames: ['a.example.org', 'a.example.net'] }],
    [constrained([dns('example.org')]), { dnsNames: ['badexample.org'] }],
    [constrained([], [dns('example.org')]), { dnsNames: ['a.EXAMPLE.org'] }],
    [constrained([uri('other.org')]).intermediate(), {}],
    [constrained([uri('127.0.0.1')]), { id: 'spiffe://127.0.0.1/a' }],
  ] as const) {
    assert.throws(() => verify(from, wishes), fault('svid/invalid', /permit|exclude|by name/));
  }
});

test('X509-14 a constraint on a kind of name nobody checks refuses those that have one, and only those', () => {
  const from = constrained([], [sequence(tlv(0x87, Buffer.alloc(8)))]);
  assert.equal(verify(from).length, 3);
  const address = extension(
    '2.5.29.17',
    false,
    sequence(tlv(0x86, Buffer.from('spiffe://example.org/a')), tlv(0x87, Buffer.alloc(4))),
  );
  assert.throws(() => verify(from, { uris: [], more: [address] }), fault('svid/invalid', /cannot be checked/));
  assert.throws(
    () => verify(constrained([sequence(tlv(0xa4, name([['O', 'x']])))])),
    fault('svid/invalid', /cannot be checked/),
  );
});
