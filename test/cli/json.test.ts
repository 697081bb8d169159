import { equal } from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { jsonLine, plainStruct } from '../../cli/json.ts';

suite('JSON output', () => {
  for (const [claim, value, line] of [
    ['sorts keys at every depth', { b: { d: 1, c: 2 }, a: 0 }, '{"a":0,"b":{"c":2,"d":1}}'],
    ['keeps zero values', { n: 0, s: '', f: false, l: [] }, '{"f":false,"l":[],"n":0,"s":""}'],
    ['leaves nulls out', { a: null, b: undefined, c: 1 }, '{"c":1}'],
    ['prints 64-bit integers as text', { n: 12345678901234567890n }, '{"n":"12345678901234567890"}'],
    [
      'prints bytes as standard base64',
      { b: Buffer.from([251, 255]), u: new Uint8Array([1]) },
      '{"b":"+/8=","u":"AQ=="}',
    ],
    [
      'leaves out the names of oneofs',
      { _hint: 'hint', hint: null, bundle_endpoint_profile: 'https_web', https_web: {} },
      '{"https_web":{}}',
    ],
    ['keeps a mask bit of the same name', { bundle_endpoint_profile: true }, '{"bundle_endpoint_profile":true}'],
    ['prints a list of messages', [{ b: 1, a: null }, {}], '[{"b":1},{}]'],
    [
      'keeps a claim that begins with an underscore',
      { _claim_names: { a: 'b' }, _x: 'y' },
      '{"_claim_names":{"a":"b"},"_x":"y"}',
    ],
    ['prints an empty message', {}, '{}'],
    ['keeps a selector of type "value"', { type: 'value', value: 'x' }, '{"type":"value","value":"x"}'],
  ] as const) {
    test(claim, () => equal(jsonLine(value), `${line}\n`));
  }

  test('keeps a hostile key a key', () => {
    const map = JSON.parse('{"__proto__":{"x":1}}');
    equal(jsonLine({ bundles: map }), '{"bundles":{"__proto__":{"x":1}}}\n');
  });

  test('is one line, whatever texts are in it', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.string()),
        (value) => jsonLine(value).indexOf('\n') === jsonLine(value).length - 1,
      ),
    );
  });

  test('prints a protobuf Struct as the JSON it stands for', () => {
    const text = (stringValue: string): object => ({ kind: 'stringValue', stringValue });
    const struct = {
      fields: {
        aud: { kind: 'listValue', listValue: { values: [text('a'), text('b')] } },
        exp: { kind: 'numberValue', numberValue: 5 },
        ok: { kind: 'boolValue', boolValue: false },
        none: { kind: 'nullValue', nullValue: 'NULL_VALUE' },
        deep: { kind: 'structValue', structValue: { fields: { sub: text('x') } } },
      },
    };
    equal(
      JSON.stringify(plainStruct(struct as never)),
      '{"aud":["a","b"],"exp":5,"ok":false,"none":null,"deep":{"sub":"x"}}',
    );
  });
});
