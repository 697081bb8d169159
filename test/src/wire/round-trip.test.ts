/** SPIRE's messages and our values: what goes out comes back the same, and masks leave out what they say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { Fault } from '../../../src/errors.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import type { Entry } from '../../../src/spiffe/entry.ts';
import { parseId, parseTrustDomain } from '../../../src/spiffe/id.ts';
import { makeSelector, selectorSet } from '../../../src/spiffe/selector.ts';
import { bundleFromWire, bundleToWire, jwtKeyFromWire } from '../../../src/wire/bundle.ts';
import { draftFromWire, entryFromWire, entryToWire, patchFromWire, wholeNumber } from '../../../src/wire/entry.ts';
import { idFromWire, idToWire, selectorsFromWire } from '../../../src/wire/id.ts';
import { testAuthority } from '../../support/ca.ts';

const segment = fc.stringMatching(/^[A-Za-z0-9._-]{1,12}$/).filter((text) => text !== '.' && text !== '..');
const domain = fc.stringMatching(/^[a-z0-9._-]{1,20}$/).map(parseTrustDomain);
const anyId = fc
  .tuple(domain, fc.array(segment, { maxLength: 4 }))
  .map(([td, path]) => parseId(`spiffe://${[td, ...path].join('/')}`));
const text = fc.string({ minLength: 1, unit: 'binary' }).filter((one) => !one.includes('\0'));
const selector = fc
  .tuple(
    text.filter((type) => !type.includes(':')),
    text,
  )
  .map(([type, value]) => makeSelector(type, value));
const int32 = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const int64 = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const anyEntry: fc.Arbitrary<Entry> = fc.record({
  id: fc.stringMatching(/^[A-Za-z0-9._-]{1,40}$/),
  spiffeId: anyId,
  parentId: anyId,
  selectors: fc.array(selector, { minLength: 1, maxLength: 4 }).map(selectorSet),
  x509SvidTtl: int32,
  jwtSvidTtl: int32,
  federatesWith: fc.array(domain, { maxLength: 3 }),
  admin: fc.boolean(),
  downstream: fc.boolean(),
  expiresAt: int64,
  dnsNames: fc.array(segment, { maxLength: 3 }),
  revision: int64,
  storeSvid: fc.boolean(),
  hint: fc.string({ unit: 'binary' }),
  createdAt: int64,
  disableX509SvidPrefetch: fc.boolean(),
  jwtSvidIncludeJti: fc.boolean(),
});
const codec = messageCodec('spire.api.types.Entry');

test('an entry comes through the wire as it was, whatever is in it', () => {
  fc.assert(
    fc.property(anyEntry, (entry) => {
      const wire = codec.decode(codec.encode(entryToWire(entry)));
      const { revision, createdAt, ...draft } = entry;
      assert.deepEqual(draftFromWire(wire), draft);
      assert.deepEqual(entryFromWire(wire), { ...draft, revision, createdAt });
      assert.deepEqual(patchFromWire(wire, null), (({ id: _, ...rest }) => rest)(draft));
    }),
    { numRuns: 500 },
  );
});

test('a mask lets through exactly what it names, out and in', () => {
  const fields = Object.keys(codec.decode(Buffer.alloc(0))).filter((field) => field !== 'id' && !field.startsWith('_'));
  fc.assert(
    fc.property(anyEntry, fc.subarray([...fields, 'additional_attributes']), (entry, wanted) => {
      const mask = Object.fromEntries(wanted.map((field) => [field, true]));
      const whole = entryToWire(entry) as Record<string, unknown>;
      const masked = entryToWire(entry, mask) as Record<string, unknown>;
      assert.deepEqual(
        masked,
        Object.fromEntries(Object.entries(whole).filter(([field]) => field === 'id' || wanted.includes(field))),
      );
      const patch = patchFromWire(codec.decode(codec.encode(whole)), mask);
      const ours = wanted.filter((field) => field !== 'revision_number' && field !== 'created_at');
      const names = new Set(
        ours.flatMap((field) =>
          field === 'additional_attributes'
            ? ['disableX509SvidPrefetch', 'jwtSvidIncludeJti']
            : [field.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())],
        ),
      );
      assert.deepEqual(new Set(Object.keys(patch)), names);
    }),
    { numRuns: 300 },
  );
});

test('an ID comes back as it went; the domain may be named by an ID; nothing is normalised', () => {
  fc.assert(fc.property(anyId, (id) => assert.equal(idFromWire(idToWire(id), 'ID'), id)));
  assert.equal(
    idFromWire({ trust_domain: 'spiffe://example.org/ignored', path: '/a' }, 'ID'),
    'spiffe://example.org/a',
  );
  assert.throws(() => idFromWire(null, 'the thing'), /the thing is missing/);
  for (const [trust_domain, path] of [
    ['example.org', 'a'],
    ['example.org', '/a/'],
    ['example.org', '//a'],
    ['example.org', '/%61'],
    ['EXAMPLE.org', '/a'],
    ['example.org:80', '/a'],
    ['', '/a'],
    ['a@b', '/x'],
    ['example.org', '/a?b'],
    ['example.org', '/é'],
  ] as const)
    assert.throws(
      () => idFromWire({ trust_domain, path }, 'ID'),
      (error) => error instanceof Fault && error.code === 'id/invalid',
      `${trust_domain} ${path}`,
    );
});

test('OpenSSH CVE-2026-35414 separators inside a selector keep it apart from every other', () => {
  const wire = [
    { type: 'a', value: 'b:c' },
    { type: 'a', value: 'b' },
    { type: 'a', value: 'b,a:c' },
    { type: 'a', value: 'b/c' },
    { type: 'a', value: 'b' },
  ];
  assert.deepEqual(selectorsFromWire(wire), ['a:b', 'a:b,a:c', 'a:b/c', 'a:b:c']);
  for (const one of [
    { type: 'a:b', value: 'c' },
    { type: '', value: 'x' },
    { type: 'a', value: '' },
    { type: 'a', value: 'x\0y' },
  ])
    assert.throws(() => selectorsFromWire([one]), Fault);
});

test('TB-5 a bundle comes through the wire as it was, its 64 bits of sequence too', () => {
  const ca = testAuthority({ now: Date.UTC(2030, 0, 1) });
  const key = { keyId: 'k', publicKey: ca.jwtKey.publicKey, expiresAt: 9_000_000_000, tainted: true };
  const bundle: Bundle = ca.bundle({
    jwtAuthorities: [key],
    witAuthorities: [{ ...key, keyId: 'w' }],
    sequence: 2n ** 64n - 1n,
  });
  const types = messageCodec('spire.api.types.Bundle');
  assert.deepEqual(bundleFromWire(types.decode(types.encode(bundleToWire(bundle)))), bundle);
  assert.deepEqual(bundleToWire(bundle, { refresh_hint: true }), { trust_domain: 'example.org', refresh_hint: 300 });
  assert.deepEqual(bundleToWire(bundle, {}), { trust_domain: 'example.org' });
});

test('a JWT key needs an ID and a public key, and a private one is none', () => {
  const td = parseTrustDomain('example.org');
  const { privateKey, publicKey } = generateKey('ec-p256');
  const good = {
    key_id: 'k',
    public_key: publicKey.export({ format: 'der', type: 'spki' }),
    expires_at: '0',
    tainted: false,
  };
  assert.equal(jwtKeyFromWire(good, td).keyId, 'k');
  for (const wrong of [
    { key_id: '' },
    { public_key: Buffer.alloc(0) },
    { public_key: privateKey.export({ format: 'der', type: 'pkcs8' }) },
    { public_key: Buffer.from(publicKey.export({ format: 'pem', type: 'spki' })) },
  ])
    assert.throws(
      () => jwtKeyFromWire({ ...good, ...wrong }, td),
      (error) => error instanceof Fault && error.code === 'bundle/invalid',
    );
});

test('whole numbers are safe ones of at least 0', () => {
  assert.deepEqual(
    ['0', '9007199254740991', 7].map((value) => wholeNumber(value, 'it')),
    [0, Number.MAX_SAFE_INTEGER, 7],
  );
  for (const value of ['-1', '9007199254740992', '1.5', 'x', Number.NaN, -1])
    assert.throws(
      () => wholeNumber(value, 'it'),
      (error) => error instanceof Fault && error.message.startsWith('it '),
    );
});
