/**
 * The negative rows of the conformance checklist, by number: for each, inputs that must be refused (or, where the
 * standard says so, skipped or passed), and beside them the nearest input that is right.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyUsage } from '../../src/crypto/certificate.ts';
import { name } from '../../src/crypto/certificate-writer.ts';
import { Fault } from '../../src/errors.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { checkEndpointServer, checkRedirect } from '../../src/spiffe/bundle-endpoint.ts';
import { parseBundle, printBundle, supersedes, takeUpdate } from '../../src/spiffe/bundle-jwks.ts';
import { takeMapUpdate } from '../../src/spiffe/bundle-map.ts';
import { makeId, parseId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { witFromHeaders } from '../../src/spiffe/wit-proof.ts';
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts';
import { checkLeaf, lintX509Svid, verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { type CertificateWishes, testAuthority } from '../support/ca.ts';
import { testWits } from '../support/wit.ts';

const now = Date.UTC(2030, 0, 1);
const seconds = now / 1000;
const ca = testAuthority({ now });
const p384 = testAuthority({ now, jwtKeyType: 'ec-p384' });
const rsa = testAuthority({ now, jwtKeyType: 'rsa-2048' });
const other = testAuthority({ now, trustDomain: 'other.org' });
const bundle = ca.bundle();
const day = 86_400_000;

/** Whether `run` refuses with a Fault; anything else that is thrown is a defect and fails the test. */
async function refuses(run: () => unknown): Promise<boolean> {
  try {
    await run();
    return false;
  } catch (error) {
    assert.ok(error instanceof Fault, `expected a Fault, got ${String(error)}`);
    return true;
  }
}

/** ID rows: every reader of IDs must refuse; a certificate and a token that carry it must be refused as well. */
const ids: [row: number, ids: string, bad: string[], good: string[]][] = [
  [1, 'ID-1', ['', 'example.org/a'], ['spiffe://example.org/a']],
  [2, 'ID-1', ['http://example.org/a', 'SPIFFE://example.org/a', '//example.org/a'], []],
  [3, 'ID-1', ['spiffe:///a', 'spiffe://'], []],
  [4, 'ID-3', ['spiffe://u@example.org/a', 'spiffe://u:p@example.org/a'], []],
  [5, 'ID-3', ['spiffe://example.org:443/a', 'spiffe://example.org:/a'], []],
  [6, 'ID-4', ['spiffe://Example.org/a'], []],
  [7, 'ID-4', ['spiffe://ex%61mple.org/a'], []],
  [8, 'ID-4 ID-5', ['spiffe://[::1]/a'], ['spiffe://127.0.0.1/a']],
  [9, 'ID-6', ['spiffe://example.org/a%2Fb'], []],
  [10, 'ID-7', ['spiffe://example.org/a//b'], []],
  [
    11,
    'ID-7',
    ['spiffe://example.org/a/../b', 'spiffe://example.org/./a', 'spiffe://example.org/a/..'],
    ['spiffe://example.org/...'],
  ],
  [12, 'ID-7', ['spiffe://example.org/a/', 'spiffe://example.org/'], []],
  [13, 'ID-2', ['spiffe://example.org/a?x=1', 'spiffe://example.org/a#f', 'spiffe://example.org/a?'], []],
  [
    14,
    'ID-8',
    ['spiffe://example.org/a b', 'spiffe://example.org/a~b', 'spiffe://example.org/a:b', 'spiffe://example.org/é'],
    [],
  ],
  [15, 'ID-11', [`spiffe://${'a'.repeat(256)}/a`], [`spiffe://${'a'.repeat(255)}/a`]],
  [16, 'ID-9 ID-10', [`spiffe://example.org/${'a'.repeat(2028)}`], [`spiffe://example.org/${'a'.repeat(2027)}`]],
];
for (const [row, requirements, bad, good] of ids) {
  test(`negative row ${row}: ${requirements} refuses ${bad.map((text) => JSON.stringify(text.slice(0, 40))).join(', ')}`, async () => {
    for (const text of bad) {
      assert.ok(await refuses(() => parseId(text)), text);
      assert.ok(await refuses(() => verifyJwtSvid(ca.jwt({ sub: text }), 'audience', () => bundle, now)), text);
      // Only ASCII can stand in a certificate at all.
      if (/^[\x20-\x7e]+$/.test(text))
        assert.ok(await refuses(() => checkLeaf(ca.issue({ id: text }).certificate)), text);
    }
    for (const text of good) {
      assert.equal(parseId(text), text);
      assert.equal(checkLeaf(ca.issue({ id: text }).certificate), text);
    }
  });
}

test('negative rows 6, 10, 11 and 16: ID-4 ID-7 ID-10 an issuer cannot put such an ID together from its parts', async () => {
  const domain = parseTrustDomain('example.org');
  assert.ok(await refuses(() => parseTrustDomain('Example.org')));
  for (const path of ['/a//b', '/a/../b', '/a/', '/', 'a', `/${'a'.repeat(2028)}`])
    assert.ok(await refuses(() => makeId(domain, path)), path);
});

/** X.509 rows: a chain that must not verify against the bundle of example.org. */
const leaves: [row: number, ids: string, what: string, chain: () => readonly Buffer[]][] = [
  [17, 'X509-2', 'two URI names', () => ca.issue({ uris: ['spiffe://example.org/a', 'https://example.org/a'] }).chain],
  [18, 'X509-1', 'no URI name', () => ca.issue({ uris: [], dnsNames: ['example.org'] }).chain],
  [19, 'X509-11 X509-25', 'cA=TRUE', () => ca.issue({ ca: true, keyUsage: KeyUsage.digitalSignature }).chain],
  [20, 'X509-25', 'keyCertSign', () => ca.issue({ keyUsage: KeyUsage.digitalSignature | KeyUsage.keyCertSign }).chain],
  [20, 'X509-25', 'cRLSign', () => ca.issue({ keyUsage: KeyUsage.digitalSignature | KeyUsage.cRLSign }).chain],
  [21, 'X509-26', 'an ID without a path', () => ca.issue({ id: 'spiffe://example.org' }).chain],
  [21, 'X509-26', 'an https URI', () => ca.issue({ id: 'https://example.org/a' }).chain],
  [
    22,
    'ID-17 X509-24',
    'an authority of another trust domain',
    () => other.issue({ id: 'spiffe://example.org/a' }).chain,
  ],
  [23, 'X509-24', 'an expired leaf', () => ca.issue({ notBefore: now - day, notAfter: now - 1000 }).chain],
  [23, 'X509-24', 'a leaf of tomorrow', () => ca.issue({ notBefore: now + 1000, notAfter: now + day }).chain],
  [23, 'X509-24', 'an exceeded path length', () => ca.intermediate({ pathLength: 0 }).intermediate().issue().chain],
  [23, 'X509-24', 'an intermediate with cA=FALSE', () => ca.intermediate({ ca: false }).issue().chain],
];
for (const [row, requirements, what, chain] of leaves) {
  test(`negative row ${row}: ${requirements} refuses a leaf with ${what}`, async () => {
    assert.ok(await refuses(() => verifyX509Svid(chain(), bundle, now)));
  });
}

test('negative row 22: ID-17 a leaf of a.org does not verify against b.org, whichever bundle is asked', async () => {
  const a = testAuthority({ now, trustDomain: 'a.org' });
  const b = testAuthority({ now, trustDomain: 'b.org' });
  const forged = b.issue({ id: 'spiffe://a.org/x' }).chain;
  assert.ok(await refuses(() => verifyX509Svid(forged, a.bundle(), now)));
  assert.ok(await refuses(() => verifyX509Svid(forged, b.bundle(), now)));
  assert.equal(verifyX509Svid(b.issue({ id: 'spiffe://b.org/x' }).chain, b.bundle(), now).id, 'spiffe://b.org/x');
});

const lints: [ids: string, wishes: CertificateWishes][] = [
  ['X509-15', { keyUsage: null }],
  ['X509-15', { keyUsageCritical: false }],
  ['X509-5', { subject: name([]) }],
  ['X509-22', { extendedKeyUsage: ['serverAuth'] }],
];
for (const [requirement, wishes] of lints) {
  test(`negative row 24: ${requirement} the lint of issued certificates names ${JSON.stringify(Object.keys(wishes))}`, () => {
    const problems = lintX509Svid(ca.issue(wishes).certificate);
    assert.ok(
      problems.length > 0 &&
        problems.every((problem) => problem.startsWith(`${requirement}:`) || problem.startsWith('X509-18:')),
      problems.join('; '),
    );
    assert.deepEqual(lintX509Svid(ca.issue().certificate), []);
  });
}

const b64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const [head, body, signature] = ca.jwt().split('.') as [string, string, string];
const unsigned = (header: object): string => `${b64(header)}.${body}.`;
const jwkOf = (from: typeof ca): Bundle['jwtAuthorities'][0] => from.bundle().jwtAuthorities[0]!;

const tokens: [row: number, ids: string, what: string, token: () => string, trusted?: () => Bundle][] = [
  [25, 'JWT-3', 'alg none without a signature', () => unsigned({ alg: 'none', kid: ca.jwtKeyId })],
  [25, 'JWT-3', 'alg none with a signature', () => ca.jwt({}, { alg: 'none' })],
  [25, 'JWT-3', 'alg HS256', () => ca.jwt({}, { alg: 'HS256' })],
  [25, 'JWT-3', 'alg EdDSA', () => ca.jwt({}, { alg: 'EdDSA' })],
  [26, 'JWT-5', 'typ at+jwt', () => ca.jwt({}, { typ: 'at+jwt' })],
  [26, 'JWT-5', 'typ wit+jwt', () => ca.jwt({}, { typ: 'wit+jwt' })],
  [
    26,
    'JWT-5 WIT-22',
    'a whole WIT-SVID in its place',
    () =>
      ca.jwt(
        { aud: undefined, cnf: { jwk: { kty: 'EC', crv: 'P-256', alg: 'ES256', x: 'AA', y: 'AA' } } },
        { typ: 'wit+jwt' },
      ),
  ],
  [27, 'JWT-8', 'no aud', () => ca.jwt({ aud: undefined })],
  [27, 'JWT-8', 'an empty aud', () => ca.jwt({ aud: [] })],
  [27, 'JWT-8', 'the aud of another service', () => ca.jwt({ aud: ['other'] })],
  [28, 'JWT-11', 'no exp', () => ca.jwt({ exp: undefined })],
  [28, 'JWT-11', 'an exp that has passed', () => ca.jwt({ exp: seconds })],
  [29, 'JWT-6', 'no sub', () => ca.jwt({ sub: undefined })],
  [29, 'JWT-6', 'a sub that is no SPIFFE ID', () => ca.jwt({ sub: 'workload' })],
  [30, 'JWT-16 ID-17', 'a key of another trust domain only', () => other.jwt({ sub: 'spiffe://example.org/a' })],
  [
    30,
    'JWT-16 WIT-29',
    'a key under use wit-svid only',
    () => ca.jwt(),
    () => ca.bundle({ jwtAuthorities: [], witAuthorities: bundle.jwtAuthorities }),
  ],
  [31, 'JWT-1', 'flattened JSON serialization', () => JSON.stringify({ protected: head, payload: body, signature })],
  [
    31,
    'JWT-1',
    'general JSON serialization',
    () => JSON.stringify({ payload: body, signatures: [{ protected: head, signature }] }),
  ],
  [31, 'JWT-1', 'two parts', () => `${head}.${body}`],
  [31, 'JWT-1', 'five parts', () => `${head}.${body}.${signature}.${body}.${signature}`],
  [
    31,
    'JWT-13',
    'an altered payload',
    () => `${head}.${b64({ sub: 'spiffe://example.org/admin', aud: ['audience'], exp: seconds + 300 })}.${signature}`,
  ],
  [32, 'JWT-3', 'ES256 named with a P-384 key', () => p384.jwt({}, { alg: 'ES256' }), () => p384.bundle()],
  [32, 'JWT-3', 'ES256 named with an RSA key', () => rsa.jwt({}, { alg: 'ES256' }), () => rsa.bundle()],
  [32, 'JWT-3', 'RS256 named with an EC key', () => ca.jwt({}, { alg: 'RS256' })],
];
for (const [row, requirements, what, token, trusted = () => bundle] of tokens) {
  test(`negative row ${row}: ${requirements} refuses a token with ${what}`, async () => {
    assert.ok(
      await refuses(() =>
        verifyJwtSvid(token(), 'audience', (domain) => (domain === 'example.org' ? trusted() : undefined), now),
      ),
    );
  });
}

test('negative row 30: JWT-16 a token signed by the key of an X.509 authority is refused, though it is in the same bundle', async () => {
  const text = JSON.parse(printBundle(ca.bundle({ jwtAuthorities: [{ ...jwkOf(ca), publicKey: ca.key.publicKey }] })));
  text.keys[1].use = 'x509-svid';
  const read = parseBundle(JSON.stringify(text), ca.trustDomain);
  assert.deepEqual(read.jwtAuthorities, []);
  assert.ok(await refuses(() => verifyJwtSvid(ca.jwt(), 'audience', () => read, now)));
});

test('negative rows 25 to 32: JWT-6 JWT-8 the token they are all made from is accepted', async () => {
  for (const from of [ca, p384, rsa])
    assert.equal(
      (await verifyJwtSvid(from.jwt(), 'audience', () => from.bundle(), now)).id,
      'spiffe://example.org/workload',
    );
});

const wits = testWits(ca, now);
/** Verifies a WIT-SVID with a proof that is right for it. */
const verifyWit = (wit: string) =>
  verifyWitSvid(wit, () => wits.bundle, now, { token: wits.proof(wit), audience: 'audience' });

const boundWith = (change: object): { cnf: object } => ({ cnf: { jwk: { ...wits.jwk, ...change } } });
const badWits: [row: number, ids: string, what: string, wit: () => string][] = [
  [33, 'WIT-2', 'no kid', () => wits.wit({}, { kid: undefined })],
  [33, 'WIT-9', 'no cnf', () => wits.wit({ cnf: undefined })],
  [33, 'WIT-9', 'a cnf without a jwk', () => wits.wit({ cnf: { kid: 'x' } })],
  [33, 'WIT-13', 'no exp', () => wits.wit({ exp: undefined })],
  [33, 'WIT-4', 'typ JWT', () => wits.wit({}, { typ: 'JWT' })],
  [33, 'WIT-4', 'no typ', () => wits.wit({}, { typ: undefined })],
  [34, 'WIT-18', 'an aud', () => wits.wit({ aud: ['audience'] })],
  [34, 'WIT-10', 'a cnf of alg EdDSA', () => wits.wit(boundWith({ alg: 'EdDSA' }))],
  [34, 'WIT-10', 'a cnf of alg HS256', () => wits.wit(boundWith({ alg: 'HS256' }))],
  [34, 'WIT-10', 'a cnf that is a secret', () => wits.wit({ cnf: { jwk: { kty: 'oct', k: 'AAAA', alg: 'HS256' } } })],
];
for (const [row, requirements, what, wit] of badWits) {
  test(`negative row ${row}: ${requirements} refuses a WIT with ${what}`, async () => {
    assert.ok(await refuses(() => verifyWit(wit())));
  });
}

test('negative row 35: WIT-21 a WIT alone is refused, and so is one with a proof by another key', async () => {
  const wit = wits.wit();
  assert.ok(await refuses(() => verifyWitSvid(wit, () => wits.bundle, now)));
  const stolen = { token: testWits(ca, now).proof(wit), audience: 'audience' };
  assert.ok(await refuses(() => verifyWitSvid(wit, () => wits.bundle, now, stolen)));
});

test('negative row 35: WIT-22 a WIT as Authorization: Bearer refuses the request', async () => {
  const wit = wits.wit();
  assert.ok(await refuses(() => witFromHeaders({ authorization: `Bearer ${wit}` })));
  assert.equal(witFromHeaders({ 'workload-identity-token': wit }).token, wit);
});

test('negative rows 33 to 35: WIT-21 the WIT they are all made from is accepted with its proof', async () => {
  assert.equal((await verifyWit(wits.wit())).id, 'spiffe://example.org/workload');
});

const domain = ca.trustDomain;
const text = printBundle(bundle);
const changed = (which: number, change: object): string => {
  const document = JSON.parse(text);
  Object.assign(document.keys[which], change);
  return JSON.stringify(document);
};
const counted = (from: string): [number, number] => {
  const read = parseBundle(from, domain);
  return [read.x509Authorities.length, read.jwtAuthorities.length];
};

test('negative row 36: TB-8 a bundle without keys is refused', async () => {
  assert.ok(await refuses(() => parseBundle('{"spiffe_sequence":1}', domain)));
});

test('negative row 36: TB-9 a bundle with no keys is read, and its trust domain distrusted', async () => {
  const empty = parseBundle('{"keys":[]}', domain);
  assert.ok(await refuses(() => verifyX509Svid(ca.issue().chain, empty, now)));
  assert.ok(await refuses(() => verifyJwtSvid(ca.jwt(), 'audience', () => empty, now)));
});

test('negative row 37: TB-10 TB-11 X509-30 a key with no or an unknown use, an unknown type or no x5c is skipped, the rest kept', () => {
  assert.deepEqual(counted(text), [1, 1]);
  for (const change of [{ use: undefined }, { use: 'X509-SVID' }, { kty: 'AKP' }, { x5c: undefined }, { x5c: [] }])
    assert.deepEqual(counted(changed(0, change)), [0, 1]);
});

test('negative row 38: X509-31 of two certificates in x5c only the first counts', async () => {
  const read = parseBundle(changed(0, { x5c: [ca.der, other.der].map((der) => der.toString('base64')) }), domain);
  assert.equal(verifyX509Svid(ca.issue().chain, read, now).id, 'spiffe://example.org/workload');
  assert.ok(await refuses(() => verifyX509Svid(other.issue({ id: 'spiffe://example.org/a' }).chain, read, now)));
});

test('negative row 39: TB-4 FED-5 a bundle with a lower sequence does not replace the one held; a sequence in quotes is refused', async () => {
  const [older, newer] = [
    parseBundle('{"keys":[],"spiffe_sequence":4}', domain),
    parseBundle('{"keys":[],"spiffe_sequence":5}', domain),
  ];
  assert.ok(!supersedes(older, newer));
  assert.ok(supersedes(newer, older));
  assert.ok(await refuses(() => parseBundle('{"keys":[],"spiffe_sequence":"5"}', domain)));
});

test('negative row 40: TB-15 a map with a trust domain twice is refused, and the bundles held are kept', () => {
  const held = new Map([[domain, bundle]]);
  const newer = printBundle(ca.bundle({ sequence: 2n }));
  const twice = takeMapUpdate(held, `{"trust_domains":{"example.org":${newer},"example.org":${newer}}}`);
  assert.equal(twice.bundles, held);
  assert.ok(twice.refused instanceof Fault);
  const once = takeMapUpdate(held, `{"trust_domains":{"example.org":${newer}}}`);
  assert.equal(once.bundles.get(domain)?.sequence, 2n);
});

/** A fetch that is redirected once, to a server with this ID: what is held after it. */
async function heldAfter(to: string, presented: string): Promise<Bundle> {
  const profile = { kind: 'https_spiffe', endpointSpiffeId: parseId('spiffe://example.org/endpoint') } as const;
  let held = bundle;
  await refuses(() => {
    checkEndpointServer(checkRedirect('https://example.org/bundle', to, profile), parseId(presented));
    held = takeUpdate(held, printBundle(ca.bundle({ sequence: 2n }))).bundle;
  });
  return held;
}
const redirects: [ids: string, what: string, to: string, presented: string][] = [
  ['FED-19 FED-12', 'to http:', 'http://example.org/bundle', 'spiffe://example.org/endpoint'],
  ['FED-19 FED-12', 'with userinfo', 'https://user@example.org/bundle', 'spiffe://example.org/endpoint'],
  ['FED-19 FED-23', 'to another SPIFFE ID', 'https://example.org/moved', 'spiffe://example.org/other'],
];
for (const [requirements, what, to, presented] of redirects) {
  test(`negative row 40: ${requirements} a redirect ${what} is refused, and the bundle held is kept`, async () => {
    assert.equal(await heldAfter(to, presented), bundle);
  });
}

test('negative row 40: FED-19 FED-22 a redirect under the same rules to the same SPIFFE ID is followed', async () => {
  assert.equal((await heldAfter('https://example.org/moved', 'spiffe://example.org/endpoint')).sequence, 2n);
});
