import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSettings, storeNamed } from '../../../agent/stores/settings.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { fault } from '../../support/fault.ts';

const selectors = (...texts: string[]) => texts.map(parseSelector);

test('the selectors name one store and what it is to know; a value may hold colons', () => {
  const arn = 'arn:aws:secretsmanager:eu:1:secret:x';
  const given = selectors(`aws_secretsmanager:arn:${arn}`, 'aws_secretsmanager:secretname:x');
  assert.equal(storeNamed(given), 'aws_secretsmanager');
  const settings = readSettings(given, ['secretname', 'arn', 'kmskeyid']);
  assert.equal(settings.required('arn'), arn);
  assert.equal(settings.optional('kmskeyid'), undefined);
  assert.throws(() => settings.required('kmskeyid'), fault('input/invalid', /does not say the kmskeyid/));
});

const wrong: [string, string[], RegExp][] = [
  ['two stores', ['files:name:a', 'aws_secretsmanager:secretname:a'], /more than one store: "files", "aws/],
  ['a process', ['files:name:a', 'unix:uid:0'], /more than one store/],
  ['no setting', ['files:web'], /expected files:NAME:VALUE/],
  ['an empty name', ['files::web'], /expected files:NAME:VALUE/],
  ['an empty value', ['files:name:'], /expected files:NAME:VALUE/],
  ['an unknown one', ['files:name:a', 'files:mode:0777'], /"files:mode:0777" .* expected one of name, uid/],
  ['one twice', ['files:name:a', 'files:name:b'], /"files:name:b" .* name is given twice/],
];
for (const [name, given, message] of wrong) {
  test(`refused: ${name}`, () => {
    assert.throws(
      () => {
        storeNamed(selectors(...given));
        readSettings(selectors(...given), ['name', 'uid']);
      },
      fault('input/invalid', message),
    );
  });
}
