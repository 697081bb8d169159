import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FileNode, parseConfigFile } from '../../../src/config/file.ts';

/** The tree without places. */
function plain(node: FileNode | undefined): unknown {
  if (node === undefined || node.is === 'null') return null;
  if (node.is === 'text') return node.text;
  if (node.is === 'list') return node.items.map(plain);
  return Object.fromEntries([...node.keys].map(([key, { node: below }]) => [key, plain(below)]));
}

test('scalars stay the text that was written', () => {
  const { root, problems } = parseConfigFile(
    'x.yaml',
    'mode: 0770\nbig: 12345678901234567890\nversion: 1.10\non: yes\nq: "true"\n',
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(plain(root), { mode: '0770', big: '12345678901234567890', version: '1.10', on: 'yes', q: 'true' });
});

test('JSON is read too, with tabs', () => {
  const { root, problems } = parseConfigFile('x.json', '{\n\t"a": {\n\t\t"b": [1, "two"]\n\t},\n\t"c": null\n}\n');
  assert.deepEqual(problems, []);
  assert.deepEqual(plain(root), { a: { b: ['1', 'two'] }, c: null });
});

test('each value knows its line and column', () => {
  const { root } = parseConfigFile('x.yaml', 'a: 1\nb:\n  - x\n  - y\n');
  assert.equal(root?.is, 'map');
  const list = root?.is === 'map' ? root.keys.get('b')?.node : undefined;
  assert.equal(list?.is === 'list' ? list.items[1]?.at : undefined, 'x.yaml:4:5');
});

for (const text of ['', '\n', '# only a comment\n', '---\n', 'null\n']) {
  test(`${JSON.stringify(text)} is an empty file, not a broken one`, () => {
    assert.deepEqual(parseConfigFile('x.yaml', text), { root: undefined, problems: [] });
  });
}

const broken: [string, string, RegExp][] = [
  ['a key twice', 'a: 1\nb: 2\na: 3\n', /^x\.yaml:3:1: .*unique/],
  ['a wrong indent', 'a:\n  b: 1\n c: 2\n', /^x\.yaml:\d:\d: /],
  ['an open quote', 'a: "x\n', /^x\.yaml:\d:\d: /],
  ['a tab as indent', 'a:\n\tb: 1\n', /^x\.yaml:2:\d: .*[Tt]ab/],
  ['a list at the top', '- a\n', /^x\.yaml:1:1: a list is not a map of keys and values$/],
  ['a text at the top', 'hello\n', /^x\.yaml:1:1: "hello" is not a map of keys and values$/],
  ['two documents', 'a: 1\n---\nb: 2\n', /^x\.yaml:2:1: .*document/],
  ['a map as a key', '{a: 1}: 2\n', /^x\.yaml:1:1: a key must be a plain word$/],
];
for (const [what, text, says] of broken) {
  test(`${what} is told with its place`, () => {
    const { problems } = parseConfigFile('x.yaml', text);
    assert.ok(problems.length > 0, 'a problem');
    assert.match(problems[0]!, says);
  });
}

test('aliases are followed', () => {
  const { root, problems } = parseConfigFile('x.yaml', 'a: &x 5m\nb: *x\n');
  assert.deepEqual(problems, []);
  assert.deepEqual(plain(root), { a: '5m', b: '5m' });
});

test('aliases that multiply are refused, not unfolded', () => {
  const levels = Array.from({ length: 10 }, (_, level) => {
    const below = level === 0 ? Array(9).fill('x') : Array(9).fill(`*l${level - 1}`);
    return `l${level}: &l${level} [${below.join(', ')}]`;
  });
  const { problems } = parseConfigFile('x.yaml', `${levels.join('\n')}\n`);
  assert.ok(problems.some((problem) => /holds more than 20000 values/.test(problem)));
  assert.ok(problems.length < 100);
});

test('a value nested without end is refused', () => {
  const { problems } = parseConfigFile('x.yaml', `a: ${'['.repeat(40)}${']'.repeat(40)}\n`);
  assert.match(problems[0] ?? '', /nested deeper than 12 levels/);
});
