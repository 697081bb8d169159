import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { textLine } from '../../../src/log/text.ts';

test('any fields make exactly one line without control characters', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()),
      fc.string({ unit: 'binary' }),
      (fields, event) => {
        const line = textLine('t', 'info', event, JSON.parse(JSON.stringify(fields)));
        return /^t INFO {2}/.test(line) && line.endsWith('\n') && !/[\p{Cc}\u2028\u2029]/u.test(line.slice(0, -1));
      },
    ),
  );
});

test('nested fields are flat, lists stay lists', () => {
  const line = textLine('t', 'warn', 'e', { a: { b: { c: 1 } }, d: ['x', 'y'], e2: '' });
  assert.equal(line, 't WARN  e a.b.c=1 d=["x","y"] e2=""\n');
});
