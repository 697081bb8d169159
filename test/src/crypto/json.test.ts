import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseJson, parseJsonObject } from '../../../src/crypto/json.ts';
import { fault } from '../../support/fault.ts';

test('reads what JSON.parse reads', () => {
  fc.assert(
    fc.property(fc.json({ noUnicodeString: false } as never), (text) => {
      assert.deepEqual(parseJson(text, 'it', 'number'), JSON.parse(text));
    }),
  );
});

test('TB-5 integers beyond 2^53 keep every digit', () => {
  assert.equal(parseJson('18446744073709551615', 'it'), 18446744073709551615n);
  assert.equal(parseJson('-9007199254740993', 'it'), -9007199254740993n);
  assert.equal(parseJson('9007199254740991', 'it'), 9007199254740991);
  assert.equal(parseJson('1e300', 'it'), 1e300);
  assert.equal(parseJson('9007199254740993', 'it', 'number'), 9007199254740992);
});

for (const text of [
  '{"a":1,"a":2}',
  '{"a":1,"\\u0061":2}',
  '[{"b":{"a":1,"a":1}}]',
  '{"a":[{"a":1}],"a":2}',
  '{"__proto__":1,"__proto__":2}',
]) {
  test(`TB-15 refuses a member that is there twice: ${text}`, () => {
    assert.throws(() => parseJson(text, 'it'), fault('input/invalid', /twice/));
  });
}

test('the same name in two objects is not twice, and text that looks like structure is text', () => {
  for (const text of [
    '[{"a":1},{"a":2}]',
    '{"a":{"a":{"a":1}}}',
    '{"a":"{\\"a\\":1,\\"a\\":2}","b":"a:"}',
    '{"a":"a","b":["a","a"]}',
  ]) {
    assert.deepEqual(parseJson(text, 'it'), JSON.parse(text));
  }
});

test('refuses what is not JSON, nests too deep or is no object', () => {
  for (const text of ['', '{', '{"a":1}x', "{'a':1}", '{"a":1,}', 'NaN', '{"a"}', '"\\x"'])
    assert.throws(() => parseJson(text, 'it'), fault('input/invalid', /it is not JSON/));
  assert.throws(() => parseJson('['.repeat(100_000), 'it'), fault('input/invalid', /deeper/));
  for (const text of ['[]', 'null', '1', '"a"'])
    assert.throws(() => parseJsonObject(text, 'it'), fault('input/invalid', /not a JSON object/));
});
