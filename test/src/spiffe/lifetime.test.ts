import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bundlePruneAt,
  caActivateAt,
  caPrepareAt,
  jwtRenewAt,
  longestSvidTtl,
  renewAt,
  serverRenewAt,
  svidValidity,
} from '../../../src/spiffe/lifetime.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

test('an SVID is renewed at half its life, a tenth of that earlier or later', () => {
  const life = { notBefore: 0, notAfter: hour };
  assert.equal(renewAt(life, 0), 33 * minute);
  assert.equal(renewAt(life, 0.5), 30 * minute);
  assert.equal(renewAt(life, 1), 27 * minute);
  assert.equal(jwtRenewAt({ issuedAt: 0, expiresAt: 5 * minute }, 0.5), 2.5 * minute);
  assert.equal(serverRenewAt(life), 30 * minute);
});

test('with an availability target an SVID is renewed that long before its end, up to ten minutes earlier', () => {
  const life = { notBefore: 0, notAfter: 3 * day };
  assert.equal(renewAt(life, 0, day), 2 * day);
  assert.equal(renewAt(life, 1, day), 2 * day - 10 * minute);
});

test('an availability target that leaves twelve hours or less is not kept', () => {
  const short = { notBefore: 0, notAfter: day + 12 * hour };
  assert.equal(renewAt(short, 0.5, day), 18 * hour);
  assert.equal(renewAt({ notBefore: 0, notAfter: day + 12 * hour + 1 }, 0, day), 12 * hour + 1);
});

test('whatever is drawn, the renewal lies within the life', () => {
  const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(
      fc.integer({ min: 2000, max: 400 * day }),
      unit,
      fc.option(fc.integer({ min: day, max: 100 * day }), { nil: undefined }),
      (life, drawn, target) => {
        const at = renewAt({ notBefore: 1000, notAfter: 1000 + life }, drawn, target);
        assert.ok(at > 1000 && at < 1000 + life);
      },
    ),
  );
});

test('authorities are prepared half their life before the end but at most 30 days, activated a sixth but at most 7 days', () => {
  assert.equal(caPrepareAt({ notBefore: 0, notAfter: day }), 12 * hour);
  assert.equal(caActivateAt({ notBefore: 0, notAfter: day }), 20 * hour);
  assert.equal(caPrepareAt({ notBefore: 0, notAfter: 365 * day }), 335 * day);
  assert.equal(caActivateAt({ notBefore: 0, notAfter: 365 * day }), 358 * day);
  assert.equal(longestSvidTtl(day), 4 * hour);
  assert.equal(longestSvidTtl(365 * day), 7 * day);
  assert.equal(bundlePruneAt(5), day + 5);
});

test('an SVID begins ten seconds early and never outlives its issuer', () => {
  assert.deepEqual(svidValidity(day, hour, 2 * day), { notBefore: day - 10_000, notAfter: day + hour });
  assert.deepEqual(svidValidity(day, hour, day + minute), { notBefore: day - 10_000, notAfter: day + minute });
});
