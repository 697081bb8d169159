import assert from 'node:assert/strict';
import { test } from 'node:test';
import { faults } from '../../src/errors.ts';
import { pages, provenBy, readRequirements, staleDocs } from '../../tools/docs.ts';
import { readSources, sourceOf } from '../../tools/laws/source.ts';
import { caughtBy, readSecurityRecord } from '../../tools/security-record.ts';

const sources = readSources();

test('the pages in docs/ are what their tables and tests make of them', () => {
  assert.deepEqual(staleDocs(sources), []);
});

test('every error code is on the errors page, and nothing else is', () => {
  const page = pages(sources).get('docs/errors.md') ?? '';
  const listed = [...page.matchAll(/^\| `([a-z/-]+)` \|/gm)].map(([, code]) => code);
  assert.deepEqual(listed, Object.keys(faults));
});

test('the table of requirements has each id once, with a level and words', () => {
  const requirements = readRequirements();
  assert.equal(new Set(requirements.map(({ id }) => id)).size, requirements.length);
  for (const { id, level, text, section } of requirements) {
    assert.match(id, /^(ID|X509|JWT|WIT|WE|WA|TB|FED|BE|BR|ST|NEG)-\d+A?$/);
    assert.match(level, /^(MUST|SHOULD|MAY)$/, id);
    assert.ok(text.length > 5 && section !== '', id);
  }
  assert.equal(requirements.filter(({ id }) => id.startsWith('NEG-')).length, 40);
});

test('an id counts where a test or a table of cases carries it, not in a comment or inside a longer word', () => {
  const requirements = readRequirements();
  const proven = provenBy(requirements, [
    sourceOf(
      'test/src/a.test.ts',
      "// WA-1\ntest('WE-3 X509-21 does it', () => {});\nconst cases = [['NEG-7', 'x']];\nconst no = 'XWE-4 WE-55';",
    ),
    sourceOf('test/support/b.ts', "const x = 'WE-5';"),
  ]);
  const found = [...proven].filter(([, files]) => files.length > 0).map(([id]) => id);
  assert.deepEqual(found.sort(), ['NEG-7', 'WE-3', 'X509-21']);
});

test('bad inputs count by their row, in names and in tables', () => {
  const proven = provenBy(readRequirements(), [
    sourceOf(
      'test/conformance/negative.test.ts',
      "const rows = [[1, 'ID-1', 'x'],\n [\n  2,\n 'ID-1'], [3, 'no id']];\ntest(`negative row ${row}: x`);\ntest('negative row 22: x');\ntest('negative rows 6, 10 and 16: x');\ntest('negative rows 25 to 27: x');",
    ),
  ]);
  const rows = [...proven]
    .filter(([id, files]) => id.startsWith('NEG-') && files.length > 0)
    .map(([id]) => Number(id.slice(4)));
  assert.deepEqual(rows, [1, 2, 6, 10, 16, 22, 25, 26, 27]);
});

test('every security bug of the record has a test that is named after it, or else a reason', () => {
  const record = readSecurityRecord();
  const caught = caughtBy(record, sources);
  assert.equal(new Set(record.map(({ id }) => id)).size, record.length);
  for (const { id, where, bug, why } of record) {
    assert.ok(where !== '' && bug.length > 10, id);
    const tests = caught.get(id) ?? [];
    assert.equal(tests.length > 0, why === '', `${id}: ${tests.length} tests, and the reason ${JSON.stringify(why)}`);
  }
});

test('a bug counts as caught by the name of a test, not by a comment or a longer id', () => {
  const bug = (id: string) => ({ id, where: 'x', bug: 'x', why: '' });
  const caught = caughtBy(
    [bug('SPIRE 1.4.3'), bug('SPIRE 1.4'), bug('CVE-2022-2163'), bug('S#886')],
    [sourceOf('test/a.test.ts', "// S#886\ntest('SPIRE 1.4.3 CVE-2022-21635 does it', () => {});")],
  );
  assert.deepEqual(
    [...caught.values()].map(({ length }) => length),
    [1, 0, 0, 0],
  );
});
