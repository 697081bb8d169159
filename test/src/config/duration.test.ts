import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDuration, printDuration } from '../../../src/config/duration.ts';

const valid: [string, number][] = [
  ['0', 0],
  ['0s', 0],
  ['1ms', 1],
  ['90s', 90_000],
  ['5m', 300_000],
  ['1h30m', 5_400_000],
  ['2h45m30s', 9_930_000],
  ['1d', 86_400_000],
  ['1d2h3m4s5ms', 93_784_005],
  ['1m5ms', 60_005],
];
for (const [text, ms] of valid) {
  test(`reads ${text} as ${ms} ms`, () => assert.equal(parseDuration(text), ms));
}

for (const text of [
  '',
  '90',
  '1.5h',
  '1h 5m',
  '30m1h',
  '1h1h',
  '-5m',
  '+5m',
  '5',
  'h',
  '5x',
  '5M',
  '1e3s',
  '٣s',
  ' 5m',
  '5m\n',
  '5ms5m',
  '9999999999s',
]) {
  test(`refuses ${JSON.stringify(text)}`, () => assert.equal(parseDuration(text), undefined));
}

test('prints what it reads back, for every number of milliseconds', () => {
  fc.assert(fc.property(fc.nat(2 ** 40), (ms) => parseDuration(printDuration(ms)) === ms));
});
