/** Denied tokens: by jti, and by subject up to the second of revocation, never beyond. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseId } from '../../../src/spiffe/id.ts';
import { deniedTokens } from '../../../src/spiffe/revocation.ts';

const web = parseId('spiffe://example.org/web');
const db = parseId('spiffe://example.org/db');
const denied = { code: 'svid/invalid', message: /was revoked/ };

test('a token is denied by its jti, whoever its subject is, and another one is not', () => {
  const list = deniedTokens([{ until: 9, tokenId: 'a' }]);
  assert.throws(() => list.check(web, { jti: 'a', iat: 1 }), denied);
  list.check(web, { jti: 'b', iat: 1 });
  list.check(web, { iat: 1 });
  list.check(web, { jti: ['a'], iat: 1 });
});

test('a subject is denied what was issued up to that second, and nothing later; one that says no time is denied', () => {
  const moments = fc.integer({ min: 0, max: 2 ** 41 });
  fc.assert(
    fc.property(moments, moments, (issuedBy, issuedAt) => {
      const list = deniedTokens([{ until: 0, subject: web, issuedBy }]);
      const iat = Math.floor(issuedAt / 1000);
      assert.equal(list.denies(web, issuedAt), iat <= Math.floor(issuedBy / 1000));
      list.check(db, { iat });
      if (list.denies(web, issuedAt)) assert.throws(() => list.check(web, { iat }), denied);
      else list.check(web, { iat });
    }),
  );
  assert.throws(() => deniedTokens([{ until: 0, subject: web, issuedBy: 5_000 }]).check(web, {}), denied);
});
