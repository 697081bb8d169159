import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { Fault } from '../../../src/errors.ts';
import type { Bundle, JwtAuthority } from '../../../src/spiffe/bundle.ts';
import {
  jwtKeySet,
  parseBundle,
  parseBundlePem,
  printBundle,
  printBundlePem,
  supersedes,
  takeUpdate,
  witKeySet,
} from '../../../src/spiffe/bundle-jwks.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { mutated } from '../../support/mutate.ts';
import { certificates } from '../crypto/corpus.ts';

const now = Date.UTC(2030, 0, 1);
const domain = parseTrustDomain('example.org');
const authorities = (['ec-p256', 'ec-p384', 'rsa-2048'] as const).map((type) =>
  testAuthority({ now, keyType: type, jwtKeyType: type }),
);
const [ca] = authorities as [(typeof authorities)[0]];
const tokenKeys = authorities.map((held) => held.bundle().jwtAuthorities[0]!);
const roots = [
  ...authorities.map(({ der }) => der),
  Buffer.from(certificates.ed25519, 'base64'),
  Buffer.from(certificates.goRoot, 'base64'),
];

const some = <T>(all: readonly T[]): fc.Arbitrary<T[]> => fc.subarray([...all]);
const bundles: fc.Arbitrary<Bundle> = fc.record(
  {
    trustDomain: fc.constant(domain),
    x509Authorities: some(roots).map((held) => held.map((certificate) => ({ certificate, tainted: false }))),
    jwtAuthorities: some<JwtAuthority>(tokenKeys),
    witAuthorities: some<JwtAuthority>(tokenKeys),
    refreshHint: fc.integer({ min: 0, max: 1e9 }),
    sequence: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  },
  { noNullPrototype: true },
);

test('X509-27 X509-28 JWT-15 TB-3 TB-5 a bundle that is printed and read back is the same bundle, and the same text', () => {
  fc.assert(
    fc.property(bundles, (bundle) => {
      const text = printBundle(bundle);
      const read = parseBundle(text, domain);
      assert.deepEqual(read, bundle);
      assert.equal(printBundle(read), text);
    }),
    { numRuns: 50 },
  );
});

test('X509-27 X509-28 JWT-15 TB-10 TB-11 TB-12 each key has the members the standard names and no others', () => {
  const { keys, ...rest } = JSON.parse(printBundle(ca.bundle({ witAuthorities: tokenKeys.slice(1) })));
  assert.deepEqual(rest, { spiffe_sequence: 1, spiffe_refresh_hint: 300 });
  const members = keys.map((key: object) => Object.keys(key).join(' '));
  assert.deepEqual(members, ['use kty crv x y x5c', 'use kid kty crv x y', 'use kid kty crv x y', 'use kid kty n e']);
  assert.deepEqual(keys[0].x5c, [ca.der.toString('base64')]);
});

test('TB-6 TB-7 a hint of 0 is left out, a sequence of 0 is printed', () => {
  assert.deepEqual(
    JSON.parse(printBundle(ca.bundle({ x509Authorities: [], jwtAuthorities: [], refreshHint: 0, sequence: 0n }))),
    { keys: [], spiffe_sequence: 0 },
  );
});

test('WA-31 the key set for workloads holds JWT keys only, named, without use, and a JOSE library verifies with it', async () => {
  const set = JSON.parse(jwtKeySet(ca.bundle({ witAuthorities: tokenKeys.slice(1) })));
  assert.deepEqual(
    set.keys.map((key: object) => Object.keys(key).join(' ')),
    ['kid kty crv x y'],
  );
  await jwtVerify(ca.jwt(), createLocalJWKSet(set), { audience: 'audience', currentDate: new Date(now) });
});

test('a bundle from elsewhere verifies SVIDs once read', () => {
  const read = parseBundle(printBundle(ca.bundle()), domain);
  assert.equal(verifyX509Svid(ca.issue().chain, read, now).id, 'spiffe://example.org/workload');
});

const good = (): { keys: Record<string, unknown>[]; [member: string]: unknown } => JSON.parse(printBundle(ca.bundle()));
const withKey = (change: Record<string, unknown>, which: 0 | 1 = 0): string => {
  const document = good();
  document.keys[which] = { ...document.keys[which], ...change };
  return JSON.stringify(document);
};
const counts = (text: string): number[] => {
  const { x509Authorities, jwtAuthorities, witAuthorities } = parseBundle(text, domain);
  return [x509Authorities.length, jwtAuthorities.length, witAuthorities.length];
};

test('TB-2 members that are not known are no hindrance, at the top or on a key', () => {
  assert.deepEqual(counts(JSON.stringify({ ...good(), more: { a: 1 } })), [1, 1, 0]);
  assert.deepEqual(counts(withKey({ alg: 'ES256', key_ops: ['verify'] }, 1)), [1, 1, 0]);
});

const skipped: [name: string, text: string, left: number[]][] = [
  ['TB-11 no use', withKey({ use: undefined }), [0, 1, 0]],
  ['TB-11 a use in another case', withKey({ use: 'X509-SVID' }), [0, 1, 0]],
  ['TB-11 a use that is no text', withKey({ use: 5 }), [0, 1, 0]],
  ['TB-11 an ordinary use', withKey({ use: 'sig' }, 1), [1, 0, 0]],
  ['TB-10 an unknown key type', withKey({ kty: 'AKP' }), [0, 1, 0]],
  ['TB-10 no key type', withKey({ kty: undefined }, 1), [1, 0, 0]],
  ['a curve no algorithm uses', withKey({ crv: 'secp256k1' }, 1), [1, 0, 0]],
  ['X509-30 no x5c', withKey({ x5c: undefined }), [0, 1, 0]],
  ['X509-30 an empty x5c', withKey({ x5c: [] }), [0, 1, 0]],
  ['JWT-15 no kid', withKey({ kid: undefined }, 1), [1, 0, 0]],
  ['JWT-15 an empty kid', withKey({ kid: '' }, 1), [1, 0, 0]],
];
for (const [what, text, left] of skipped) {
  test(`an entry with ${what} is skipped and the rest kept`, () => {
    assert.deepEqual(counts(text), left);
  });
}

test('X509-31 only the first certificate of x5c counts', () => {
  const other = authorities[1]!.der.toString('base64');
  const read = parseBundle(withKey({ x5c: [ca.der.toString('base64'), other] }), domain);
  assert.deepEqual(
    read.x509Authorities.map(({ certificate }) => certificate),
    [ca.der],
  );
  assert.deepEqual(counts(withKey({ x5c: [ca.der.toString('base64'), 'junk'] })), [1, 1, 0]);
});

const refused: [name: string, text: string, why: RegExp][] = [
  ['something else', 'bundle', /it is not JSON/],
  ['an array', '[]', /not a JSON object/],
  ['TB-8 no keys', '{"spiffe_sequence":1}', /no array "keys"/],
  ['TB-8 keys that are null', '{"keys":null}', /no array "keys"/],
  ['TB-8 keys that are an object', '{"keys":{}}', /no array "keys"/],
  ['keys twice', '{"keys":[],"keys":[]}', /"keys" twice/],
  ['a key that is no object', '{"keys":["a"]}', /key 1 is not an object/],
  ['TB-4 a sequence in quotes', '{"keys":[],"spiffe_sequence":"5"}', /"spiffe_sequence" is "5", not a whole number/],
  ['TB-4 a sequence that is not whole', '{"keys":[],"spiffe_sequence":1.5}', /not a whole number/],
  ['TB-4 a negative sequence', '{"keys":[],"spiffe_sequence":-1}', /not a whole number/],
  ['TB-4 a sequence of null', '{"keys":[],"spiffe_sequence":null}', /not a whole number/],
  ['TB-5 a sequence of 65 bits', '{"keys":[],"spiffe_sequence":18446744073709551616}', /not a whole number/],
  ['TB-7 a refresh hint in quotes', '{"keys":[],"spiffe_refresh_hint":"5"}', /"spiffe_refresh_hint"/],
  [
    'a certificate in base64url',
    withKey({ x5c: [ca.der.toString('base64url')] }),
    /key 1: "x5c" is not standard base64/,
  ],
  ['a certificate that is none', withKey({ x5c: ['AAAA'] }), /key 1: certificate is malformed/],
  [
    'a certificate with something behind it',
    withKey({ x5c: [Buffer.concat([ca.der, Buffer.of(0)]).toString('base64')] }),
    /left over/,
  ],
  [
    'a point that is not on its curve',
    withKey({ x: Buffer.alloc(32, 7).toString('base64url') }, 1),
    /key 2: it is not a valid key/,
  ],
  ['a key without its numbers', withKey({ x: undefined }, 1), /key 2: its numbers/],
  ['an enormous RSA key', withKey({ kty: 'RSA', n: 'A'.repeat(5000), e: 'AQAB' }, 1), /key 2: its numbers/],
  [
    'two different keys of one name',
    JSON.stringify({
      keys: [
        good().keys[1],
        { ...JSON.parse(jwtKeySet(authorities[1]!.bundle())).keys[0], use: 'jwt-svid', kid: ca.jwtKeyId },
      ],
    }),
    /two keys are called/,
  ],
  ['more than 4 MiB', ' '.repeat(4 * 1024 * 1024 + 1), /longer than/],
];
for (const [what, text, why] of refused) {
  test(`a bundle with ${what} is refused whole`, () => {
    assert.throws(() => parseBundle(text, domain), fault('bundle/invalid', why));
  });
}

test('TB-5 a sequence above 2^53 keeps every digit', () => {
  assert.equal(parseBundle('{"keys":[],"spiffe_sequence":9007199254740993}', domain).sequence, 9007199254740993n);
});

test('TB-9 a bundle with no keys is read, and distrusts everything', () => {
  const empty = parseBundle('{"keys":[]}', domain);
  assert.throws(() => verifyX509Svid(ca.issue().chain, empty, now), fault('svid/invalid', /no X\.509 authority/));
});

test('the same certificate or key twice counts once', () => {
  const document = good();
  assert.deepEqual(counts(JSON.stringify({ keys: [...document.keys, ...document.keys] })), [1, 1, 0]);
});

test('a private key that was published by mistake is read as the public one', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const read = parseBundle(
    JSON.stringify({ keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'k' }] }),
    domain,
  );
  assert.deepEqual(read.jwtAuthorities[0]?.publicKey, publicKey.export({ format: 'der', type: 'spki' }));
});

test('FED-26 PEM holds the X.509 authorities and nothing else', () => {
  const bundle = ca.bundle({ x509Authorities: roots.map((certificate) => ({ certificate, tainted: false })) });
  const read = parseBundlePem(printBundlePem(bundle), domain);
  assert.deepEqual(read, { ...bundle, jwtAuthorities: [], refreshHint: 0, sequence: 0n });
  assert.throws(() => parseBundlePem('junk', domain), fault('bundle/invalid', /not PEM/));
  assert.throws(
    () => parseBundlePem('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', domain),
    fault('bundle/invalid', /malformed/),
  );
});

test('FED-5 a fetched bundle replaces one of the same or a lower sequence, and any where one has none', () => {
  const at = (sequence: bigint): Bundle => ca.bundle({ sequence });
  assert.ok(supersedes(at(2n), at(1n)));
  assert.ok(supersedes(at(2n), at(2n)));
  assert.ok(!supersedes(at(1n), at(2n)));
  assert.ok(supersedes(at(0n), at(2n)));
  assert.ok(!supersedes({ ...at(9n), trustDomain: parseTrustDomain('other.org') }, at(1n)));
});

test('FED-5 an update takes the bundle fetched; one that is older or not valid leaves the very bundle held, with why', () => {
  const held = ca.bundle({ sequence: 5n });
  assert.deepEqual(takeUpdate(held, printBundle(ca.bundle({ sequence: 6n }))), { bundle: ca.bundle({ sequence: 6n }) });
  for (const [text, why] of [
    [printBundle(ca.bundle({ sequence: 4n })), /sequence 4 is lower than 5/],
    ['{}', /no array "keys"/],
    ['<html>', /not JSON/],
  ] as const) {
    const { bundle: kept, refused } = takeUpdate(held, text);
    assert.equal(kept, held);
    assert.match(refused!.message, why);
  }
});

test('WA-37 the WIT key set holds WIT keys only, each under its own name, without use', () => {
  const [jwt] = ca.bundle().jwtAuthorities;
  const wits = [testAuthority({ now }), testAuthority({ now, jwtKeyType: 'rsa-2048' })].map(
    (from) => from.bundle().jwtAuthorities[0]!,
  );
  const { keys } = JSON.parse(witKeySet(ca.bundle({ jwtAuthorities: [jwt!], witAuthorities: wits })));
  assert.deepEqual(
    keys.map((key: { kid: string }) => key.kid),
    wits.map(({ keyId }) => keyId),
  );
  assert.deepEqual(keys.map(Object.keys), [
    ['kid', 'kty', 'crv', 'x', 'y'],
    ['kid', 'kty', 'n', 'e'],
  ]);
});

test('damaged bundles: nothing but Faults', () => {
  const seeds = [Buffer.from(printBundle(ca.bundle({ witAuthorities: tokenKeys })))];
  fc.assert(
    fc.property(mutated(seeds), (bytes) => {
      try {
        const read = parseBundle(bytes.toString('utf8'), domain);
        assert.deepEqual(parseBundle(printBundle(read), domain), read);
      } catch (error) {
        assert.ok(error instanceof Fault && error.code === 'bundle/invalid', String(error));
      }
    }),
    { numRuns: 500 },
  );
});
