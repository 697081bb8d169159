import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkDnsName, checkEntry, type EntryDraft } from '../../../src/spiffe/entry.ts';
import { parseId, parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { fault } from '../../support/fault.ts';

const domain = parseTrustDomain('example.org');
const draft: EntryDraft = {
  id: '',
  spiffeId: parseId('spiffe://example.org/web'),
  parentId: parseId('spiffe://example.org/node'),
  selectors: [parseSelector('unix:uid:1')],
  x509SvidTtl: 0,
  jwtSvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  expiresAt: 0,
  dnsNames: [],
  storeSvid: false,
  hint: '',
  disableX509SvidPrefetch: false,
  jwtSvidIncludeJti: false,
};

test('a draft comes back canonical: selectors sorted, doubles gone', () => {
  const [a, b] = [parseSelector('unix:uid:1'), parseSelector('unix:gid:1')];
  const other = parseTrustDomain('other.org');
  const checked = checkEntry({ ...draft, selectors: [a, b, a], federatesWith: [other, other] }, domain);
  assert.deepEqual(checked.selectors, [b, a]);
  assert.deepEqual(checked.federatesWith, [other]);
});

const refused: [name: string, change: Partial<EntryDraft>, why: RegExp][] = [
  ['an id with a slash', { id: 'a/b' }, /entry id "a\/b"/],
  ['an id of 256 characters', { id: 'a'.repeat(256) }, /entry id/],
  ['a parent of another trust domain', { parentId: parseId('spiffe://other.org/node') }, /parent ID .* not a member/],
  ['a parent without a path', { parentId: parseId('spiffe://example.org') }, /empty path/],
  ['a workload without a path', { spiffeId: parseId('spiffe://example.org') }, /path is empty/],
  ['a reserved workload', { spiffeId: parseId('spiffe://example.org/spire/server') }, /reserved/],
  ['a workload of another trust domain', { spiffeId: parseId('spiffe://other.org/web') }, /belongs to trust domain/],
  ['no selectors', { selectors: [] }, /selector list is empty/],
  ['a negative lifetime', { x509SvidTtl: -1 }, /X509-SVID TTL "?-1"? is not valid/],
  ['a lifetime that is not whole', { jwtSvidTtl: 1.5 }, /JWT-SVID TTL/],
  ['a malformed DNS name', { dnsNames: ['a..b'] }, /DNS name "a\.\.b"/],
  ['a hint of 1025 bytes', { hint: 'é'.repeat(513) }, /longer than 1024 bytes/],
  [
    'a stored SVID with selectors of two types',
    { storeSvid: true, selectors: [parseSelector('a:1'), parseSelector('b:1')] },
    /one type only/,
  ],
  ['a stored SVID without prefetch', { storeSvid: true, disableX509SvidPrefetch: true }, /prefetch/],
];
for (const [name, change, why] of refused) {
  test(`an entry with ${name} is refused`, () => {
    assert.throws(
      () => checkEntry({ ...draft, ...change }, domain),
      (error) => fault((error as { code: 'id/invalid' | 'input/invalid' }).code, why)(error),
    );
  });
}

test('a hint of 1024 bytes passes', () => {
  assert.equal(checkEntry({ ...draft, hint: 'é'.repeat(512) }, domain).hint.length, 512);
});

test('SPIRE 1.13.1 DNS names have labels of letters, digits, - and _; a wildcard stands alone at the left', () => {
  for (const name of ['a', 'a.example.org', '*.example.org', 'a_b.c-d.e', '1.2.3.4', 'a'.repeat(63)])
    assert.equal(checkDnsName(name), name);
  for (const name of [
    '',
    '*',
    'a.*.b',
    '*a.b',
    'a.',
    '.a',
    '-a',
    'a-',
    'a b',
    'a\0',
    'é',
    'a,b',
    'a/b',
    'a'.repeat(64),
    `${'a.'.repeat(128)}a`,
  ]) {
    assert.throws(() => checkDnsName(name), fault('input/invalid'), name);
  }
});
