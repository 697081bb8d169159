/** What an upstream authority says, merged into the own bundle: pure. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { merge } from '../../../server/authority/follow-upstream.ts';
import { authorityId } from '../../../src/crypto/certificate.ts';
import type { Bundle, X509Authority } from '../../../src/spiffe/bundle.ts';
import { testAuthority } from '../../support/ca.ts';
import { td } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1);
const [one, two] = [testAuthority({ now }), testAuthority({ now })];
const root = ({ der }: { der: Buffer }, tainted = false): X509Authority => ({ certificate: der, tainted });
const bundle = (...x509Authorities: X509Authority[]): Bundle => ({
  ...{ trustDomain: td, jwtAuthorities: [], witAuthorities: [], refreshHint: 300, sequence: 1n },
  x509Authorities,
});
const nothing = () => undefined;

test('a root that was revoked here is not taken again, however often it is named', () => {
  const state = { x509Authorities: [root(one), root(two)] };
  const revoked = (id: string) => (id === authorityId(one.certificate) ? ('revoked' as const) : undefined);
  assert.equal(merge(bundle(root(two)), state, now, revoked).bundle, undefined);
  assert.equal(merge(bundle(root(two)), state, now, nothing).bundle?.x509Authorities.length, 2);
});

test('a root that is tainted here stays so when the upstream says nothing of it; a taint from there is taken', () => {
  const here = merge(bundle(root(one, true)), { x509Authorities: [root(one)] }, now, nothing);
  assert.deepEqual(here, { bundle: undefined, gone: [] });
  const there = merge(bundle(root(one)), { x509Authorities: [root(one, true)] }, now, nothing);
  assert.deepEqual(there.bundle?.x509Authorities, [root(one, true)]);
});

test('only who holds the whole bundle takes a tainted root out by its silence', () => {
  const before = bundle(root(one, true), root(two));
  const part = merge(before, { x509Authorities: [root(two)] }, now, nothing);
  assert.deepEqual(part, { bundle: undefined, gone: [] });
  const whole = merge(before, { x509Authorities: [root(two)], jwtAuthorities: [] }, now, nothing);
  assert.deepEqual([whole.bundle?.x509Authorities, whole.gone], [[root(two)], [root(one, true)]]);
});
