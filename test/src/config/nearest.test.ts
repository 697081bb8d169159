import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearest } from '../../../src/config/nearest.ts';

const known = ['trustDomain', 'dataDir', 'listen', 'caTtl', 'log'];

const cases: [string, string | undefined][] = [
  ['trust_domain', 'trustDomain'],
  ['TRUST-DOMAIN', 'trustDomain'],
  ['trustDomian', 'trustDomain'],
  ['listn', 'listen'],
  ['ca_ttl', 'caTtl'],
  ['somethingElse', undefined],
  ['', undefined],
];
for (const [word, meant] of cases) {
  test(`${JSON.stringify(word)} means ${meant ?? 'nothing known'}`, () => assert.equal(nearest(word, known), meant));
}

test('a word of megabytes costs no time that matters', () => {
  assert.equal(nearest('x'.repeat(5_000_000), known), undefined);
});
