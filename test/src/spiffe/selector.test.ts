import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  makeSelector,
  matches,
  parseSelector,
  selectorSet,
  selectorType,
  selectorValue,
} from '../../../src/spiffe/selector.ts';
import { fault } from '../../support/fault.ts';

test('a selector comes apart into the parts it was made of, whatever its value holds', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[^:\0]+$/), fc.stringMatching(/^[^\0]+$/), (type, value) => {
      const selector = makeSelector(type, value);
      assert.equal(parseSelector(selector), selector);
      assert.deepEqual([selectorType(selector), selectorValue(selector)], [type, value]);
    }),
  );
});

test('CVE-2026-35414 a delimiter or NUL inside a type, and empty parts, are refused', () => {
  for (const [type, value] of [
    ['', 'a'],
    ['a', ''],
    ['a:b', 'c'],
    ['a\0', 'b'],
    ['a', 'b\0'],
  ] as const) {
    assert.throws(() => makeSelector(type, value), fault('input/invalid'));
  }
  for (const text of ['', 'a', ':', 'a:', ':a']) assert.throws(() => parseSelector(text), fault('input/invalid'));
});

test('a set is sorted and without doubles', () => {
  const [a, b] = [parseSelector('unix:uid:1'), parseSelector('unix:gid:1')];
  assert.deepEqual(selectorSet([a, b, a]), [b, a]);
});

test('Nomad empty policy: all wanted selectors must be held; wanting none matches nothing', () => {
  const [a, b] = [parseSelector('unix:uid:1'), parseSelector('unix:gid:1')];
  assert.ok(matches([a], new Set([a, b])));
  assert.ok(!matches([a, b], new Set([a])));
  assert.ok(!matches([], new Set([a])));
});
