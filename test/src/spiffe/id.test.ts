import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Fault } from '../../../src/errors.ts';
import {
  isAgentId,
  isMemberOf,
  isReserved,
  makeId,
  parseId,
  parseTrustDomain,
  parseTrustDomainOrId,
  pathOf,
  requireWorkloadId,
  serverId,
  trustDomainId,
  trustDomainOf,
} from '../../../src/spiffe/id.ts';
import { fault } from '../../support/fault.ts';

const trustDomain = fc.stringMatching(/^[a-z0-9._-]{1,255}$/);
const segment = fc.stringMatching(/^[A-Za-z0-9._-]{1,40}$/).filter((text) => text !== '.' && text !== '..');
const path = fc.array(segment, { maxLength: 6 }).map((segments) => segments.map((text) => `/${text}`).join(''));

test('ID-1 ID-4 ID-8 an ID put together of its parts comes apart into the same parts, unchanged', () => {
  fc.assert(
    fc.property(trustDomain, path, (domain, rest) => {
      const text = `spiffe://${domain}${rest}`;
      const id = parseId(text);
      assert.equal(id, text);
      assert.equal(trustDomainOf(id), domain);
      assert.equal(pathOf(id), rest);
      assert.equal(makeId(parseTrustDomain(domain), rest), text);
      assert.ok(isMemberOf(id, parseTrustDomain(domain)));
    }),
  );
});

test('SPI-01-003 whatever text is given, an ID is that very text or a Fault: nothing is ever normalised', () => {
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }).map((rest) => `spiffe://example.org/${rest}`),
    fc
      .array(
        fc.constantFrom(
          'spiffe://',
          'a',
          '/',
          '.',
          '..',
          '%2e',
          '%2F',
          ':',
          '@',
          '?',
          '#',
          '~',
          'é',
          '\0',
          '\\',
          ' ',
          'A',
        ),
        { maxLength: 12 },
      )
      .map((parts) => parts.join('')),
  );
  const shape = /^spiffe:\/\/[a-z0-9._-]{1,255}(\/(?!\.{1,2}(\/|$))[A-Za-z0-9._-]+)*$/;
  fc.assert(
    fc.property(text, (given) => {
      try {
        assert.equal(parseId(given), given);
        assert.match(given, shape);
      } catch (error) {
        if (error instanceof Fault) assert.doesNotMatch(given, shape);
        else throw error;
      }
    }),
    { numRuns: 3000 },
  );
});

test('ID-5 a trust domain that looks like an address, or like no DNS name at all, is one like any other', () => {
  for (const name of ['127.0.0.1', '-', '_', '...', 'a..b', '-a-']) assert.equal(parseTrustDomain(name), name);
});

test('ID-9 ID-10 SPIRE 1.13.1 2048 bytes are an ID, 2049 are not', () => {
  const start = 'spiffe://example.org/';
  assert.equal(parseId(start + 'a'.repeat(2048 - start.length)).length, 2048);
  assert.throws(() => parseId(start + 'a'.repeat(2049 - start.length)), fault('id/invalid', /longer than 2048 bytes/));
});

test('ID-11 a trust domain of 255 bytes passes, one of 256 does not', () => {
  assert.equal(parseTrustDomain('a'.repeat(255)).length, 255);
  assert.throws(() => parseTrustDomain('a'.repeat(256)), fault('id/invalid', /longer than 255/));
});

test('ID-12 paths compare with their case', () => {
  assert.notEqual(parseId('spiffe://example.org/A'), parseId('spiffe://example.org/a'));
});

test('a trust domain is read from its name or from any ID of it, and from nothing else', () => {
  for (const text of ['example.org', 'spiffe://example.org', 'spiffe://example.org/any/path'])
    assert.equal(parseTrustDomainOrId(text), 'example.org');
  for (const text of ['', 'example.org/a', 'https://example.org', 'spiffe://'])
    assert.throws(() => parseTrustDomainOrId(text), fault('id/invalid'));
});

test('the reserved part of the paths is /spire and below, by whole segments', () => {
  const domain = parseTrustDomain('example.org');
  assert.equal(serverId(domain), 'spiffe://example.org/spire/server');
  assert.equal(trustDomainId(domain), 'spiffe://example.org');
  assert.ok(isAgentId(parseId('spiffe://example.org/spire/agent/join_token/x')));
  assert.ok(!isAgentId(parseId('spiffe://example.org/spire/agent')));
  for (const reserved of ['/spire', '/spire/server', '/spire/x']) assert.ok(isReserved(makeId(domain, reserved)));
  for (const free of ['', '/spired', '/Spire/x', '/a/spire']) assert.ok(!isReserved(makeId(domain, free)));
});

test('a workload has a path, outside /spire, in the trust domain asked for', () => {
  const domain = parseTrustDomain('example.org');
  assert.equal(requireWorkloadId(parseId('spiffe://example.org/a'), domain, 'ID'), 'spiffe://example.org/a');
  for (const [text, why] of [
    ['spiffe://example.org', /path is empty/],
    ['spiffe://example.org/spire/server', /reserved/],
    ['spiffe://example.net/a', /belongs to trust domain "example\.net"/],
  ] as const) {
    assert.throws(() => requireWorkloadId(parseId(text), domain, 'SPIFFE ID'), fault('id/invalid', why));
  }
});

test('a path without its slash is refused rather than mended', () => {
  assert.throws(() => makeId(parseTrustDomain('example.org'), 'a'), fault('id/invalid', /must begin with/));
});
