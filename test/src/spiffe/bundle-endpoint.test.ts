import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkEndpointServer, checkEndpointUrl, checkRedirect } from '../../../src/spiffe/bundle-endpoint.ts';
import { parseId } from '../../../src/spiffe/id.ts';
import { fault } from '../../support/fault.ts';

const web = { kind: 'https_web' } as const;
const spiffe = { kind: 'https_spiffe', endpointSpiffeId: parseId('spiffe://b.org/endpoint') } as const;
const from = 'https://b.org/bundles/map?x=1';

test('FED-12 an https URL is taken as it came, port, path and query free', () => {
  for (const url of [
    'https://b.org',
    'https://b.org:8443/a/b?c=@#d',
    'https://127.0.0.1/',
    'https://[::1]:1/',
    'HTTPS://b.org/@',
  ])
    assert.equal(checkEndpointUrl(url), url);
});

const bad: [what: string, url: string, why: RegExp][] = [
  ['nothing', '', /not a URL/],
  ['http', 'http://b.org', /must be https/],
  ['a SPIFFE ID', 'spiffe://b.org/a', /must be https/],
  ['a user', 'https://user@b.org', /user information/],
  ['a password', 'https://:p@b.org', /user information/],
  ['an empty user, which a parser drops', 'https://@b.org', /user information/],
  ['no slashes, which a parser adds', 'https:b.org', /no host/],
  ['one slash too many, which a parser drops', 'https:///b.org', /no host/],
  ['a backslash', 'https://b.org\\@evil.org/', /backslash/],
  ['a space before it', ' https://b.org', /space/],
  ['a line end', 'https://b.org/\nx', /space/],
];
for (const [what, url, why] of bad) {
  test(`FED-12 FED-19 neither a configured URL nor a redirect has ${what}`, () => {
    assert.throws(() => checkEndpointUrl(url), fault('input/invalid', why));
    if (url !== '') assert.throws(() => checkRedirect(from, url, web), fault('input/invalid', why));
  });
}

test('FED-19 FED-22 a redirect may be absolute or relative, and keeps the profile', () => {
  for (const [to, url] of [
    ['https://c.org/x', 'https://c.org/x'],
    ['//c.org/x', 'https://c.org/x'],
    ['/other', 'https://b.org/other'],
    ['other?y', 'https://b.org/bundles/other?y'],
  ] as const)
    for (const profile of [web, spiffe]) assert.deepEqual(checkRedirect(from, to, profile), { url, profile });
});

test('FED-19 a relative redirect cannot smuggle user information', () => {
  for (const to of ['//u@c.org/', '//@c.org/']) {
    assert.throws(() => checkRedirect(from, to, web), fault('input/invalid', /user information/));
  }
  for (const to of ['/\\u@c.org/', '\t//c.org/'])
    assert.throws(() => checkRedirect(from, to, web), fault('input/invalid', /redirect from/));
});

test('FED-23 FED-29 the server redirected to must show the SPIFFE ID configured, exactly', () => {
  const hop = checkRedirect(from, 'https://c.org/x', spiffe);
  checkEndpointServer(hop, spiffe.endpointSpiffeId);
  for (const found of [parseId('spiffe://b.org/endpoint2'), parseId('spiffe://c.org/endpoint'), undefined])
    assert.throws(() => checkEndpointServer(hop, found), fault('svid/invalid', /not "spiffe:\/\/b\.org\/endpoint"/));
  checkEndpointServer(checkRedirect(from, '/', web), undefined);
});
