import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { printBundle } from '../../../src/spiffe/bundle-jwks.ts';
import { parseBundleMap, takeMapUpdate } from '../../../src/spiffe/bundle-map.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';

const now = Date.UTC(2030, 0, 1);
const a = testAuthority({ now, trustDomain: 'a.org' });
const b = testAuthority({ now, trustDomain: 'b.org' });
const map = (...bundles: Bundle[]): string =>
  `{"trust_domains":{${bundles.map((bundle) => `"${bundle.trustDomain}":${printBundle(bundle)}`).join(',')}}}`;

test('TB-13 TB-17 TB-5 a map gives each trust domain its bundle, every digit of its sequence, and no refresh hint', () => {
  const sequence = 2n ** 60n + 1n;
  const read = parseBundleMap(map(a.bundle({ sequence, refreshHint: 1 }), b.bundle()));
  assert.deepEqual([...read.keys()], ['a.org', 'b.org']);
  assert.deepEqual(read.get(a.trustDomain), a.bundle({ sequence, refreshHint: 0 }));
  assert.deepEqual(read.get(b.trustDomain), b.bundle({ refreshHint: 0 }));
  assert.equal(parseBundleMap('{"trust_domains":{},"more":1}').size, 0);
  assert.equal(parseBundleMap('{"trust_domains":{"a.org":{"keys":[],"spiffe_refresh_hint":"often"}}}').size, 1);
});

const refused: [ids: string, what: string, text: string, why: RegExp][] = [
  ['TB-13', 'no trust domains', '{}', /no object "trust_domains"/],
  ['TB-13', 'a list of trust domains', '{"trust_domains":[]}', /no object "trust_domains"/],
  ['TB-13', 'a SPIFFE ID for a name', '{"trust_domains":{"spiffe://a.org":{"keys":[]}}}', /trust domain "spiffe/],
  ['TB-13', 'capitals in a name', '{"trust_domains":{"A.org":{"keys":[]}}}', /trust domain "A\.org"/],
  ['TB-14 TB-15', 'a trust domain twice', map(a.bundle(), a.bundle({ sequence: 2n })), /member "a\.org" twice/],
  [
    'TB-15',
    'a trust domain twice, once escaped',
    '{"trust_domains":{"a.org":{"keys":[]},"\\u0061.org":{"keys":[]}}}',
    /member "a\.org" twice/,
  ],
  ['TB-15', 'two lists of trust domains', '{"trust_domains":{},"trust_domains":{}}', /twice/],
  ['TB-18', 'one bundle of two that is none', map(a.bundle()).replace(/}}$/, ',"b.org":{}}}'), /"b\.org" is not valid/],
  [
    'TB-18',
    'one bundle of two that is a list',
    map(a.bundle()).replace(/}}$/, ',"b.org":[]}}'),
    /"b\.org" is not an object/,
  ],
  ['TB-13', 'text that is not JSON', 'junk', /not JSON/],
];
for (const [ids, what, text, why] of refused) {
  test(`${ids} a map with ${what} is refused whole, and the map held is kept`, () => {
    assert.throws(() => parseBundleMap(text), fault('bundle/invalid', why));
    const held = parseBundleMap(map(a.bundle(), b.bundle()));
    const { bundles, refused } = takeMapUpdate(held, text);
    assert.equal(bundles, held);
    assert.match(refused!.message, why);
  });
}

test('TB-18 FED-5 a map is the state of the world: what it leaves out is gone, what it would take back is kept', () => {
  const held = parseBundleMap(map(a.bundle({ sequence: 5n }), b.bundle()));
  const { bundles, refused } = takeMapUpdate(held, map(a.bundle({ sequence: 4n })));
  assert.equal(refused, undefined);
  assert.deepEqual([...bundles.keys()], ['a.org']);
  assert.equal(bundles.get(a.trustDomain), held.get(a.trustDomain));
  assert.equal(takeMapUpdate(held, map(a.bundle({ sequence: 6n }))).bundles.get(a.trustDomain)!.sequence, 6n);
});
