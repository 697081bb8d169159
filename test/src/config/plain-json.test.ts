import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseConfigFile } from '../../../src/config/file.ts';
import { readPlainJson } from '../../../src/config/plain-json.ts';

const parsed = (text: string) => parseConfigFile('x.json', text);

test('what is read is what the parser reads, with the same places', () => {
  const text = '{\n\t"a": { "b": [1, "two", true, null, -0.5], "c": {} },\r\n  "d": [], "e\\n\\"": "\\/"\n}\n';
  assert.deepEqual(readPlainJson('x.json', text), parsed(text).root);
  assert.notEqual(readPlainJson('x.json', text), undefined);
  const words = fc.oneof(fc.string({ maxLength: 5 }), fc.constantFrom('true', '1', 'null', '#', 'a: b', '- ', '&x'));
  const { map } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      words,
      fc.double({ noNaN: true }),
      fc.nat(),
      fc.boolean(),
      tie('map'),
      tie('list'),
    ),
    list: fc.array(tie('value'), { maxLength: 3 }),
    map: fc.dictionary(words, tie('value'), { maxKeys: 4 }),
  }));
  let read = 0;
  fc.assert(
    fc.property(map as fc.Arbitrary<object>, fc.constantFrom(undefined, 2, '\t'), (value, space) => {
      const text = JSON.stringify(value, null, space);
      const root = readPlainJson('x.json', text);
      if (root === undefined) return;
      read += 1;
      assert.deepEqual({ root, problems: [] }, parsed(text));
    }),
    { numRuns: 500 },
  );
  assert.ok(read > 100, String(read));
});

test('a text that has been tampered with is read the same or left to the parser', () => {
  const text = '{\n  "a": {"b": [1, "two"]},\n  "c": null\n}\n';
  const piece = fc.constantFrom(
    '"',
    ',',
    ':',
    '{',
    '}',
    '[',
    ']',
    '\n',
    '\t',
    ' ',
    '#',
    '0',
    '1',
    '\\',
    '-',
    'a',
    '\r',
    '\0',
  );
  fc.assert(
    fc.property(fc.nat(text.length), fc.nat(3), fc.array(piece, { maxLength: 3 }), (at, cut, pieces) => {
      const other = text.slice(0, at) + pieces.join('') + text.slice(at + cut);
      const root = readPlainJson('x.json', other);
      if (root !== undefined) assert.deepEqual({ root, problems: [] }, parsed(other), JSON.stringify(other));
    }),
    { numRuns: 5_000 },
  );
});

for (const [what, text] of [
  ['nothing', ''],
  ['a list', '[1]'],
  ['YAML', 'a: 1\n'],
  ['a key twice', '{"a": 1, "a": 2}'],
  ['a comma too many', '{"a": 1,}'],
  ['a comment', '{"a": 1} # one'],
  ['a number that JSON does not have', '{"a": 0770}'],
  ['a second document', '{"a": 1}\n---\n{"b": 1}'],
  ['letters outside ASCII', '{"a": "é"}'],
  ['a text over two lines', '{"a": "b\n c"}'],
  ['something deep', `{"a": ${'['.repeat(12)}${']'.repeat(12)}}`],
  ['very much', JSON.stringify({ a: Array(1_001).fill(1) })],
  ['half of it', '{"a": 1'],
] as const) {
  test(`${what} is left to the parser`, () => assert.equal(readPlainJson('x.json', text), undefined));
}
