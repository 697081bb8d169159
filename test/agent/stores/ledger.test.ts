import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openLedger } from '../../../agent/stores/ledger.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';

const domain = parseTrustDomain('example.org');
const record = (entryId: string) => ({ entryId, selectors: [parseSelector('files:name:web')], digest: 'd' });

function place(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'mu-'));
  mkdirSync(join(directory, 'state'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const dropped: string[] = [];
  const path = join(directory, 'state', 'stored.json');
  return { path, dropped, open: (of = domain) => openLedger(directory, of, (left) => dropped.push(left)) };
}

test('what is written is there the next time, for its owner alone', async (t) => {
  const { path, open, dropped } = place(t);
  const ledger = await open();
  await ledger.write([
    ['files web', record('a')],
    ['files db', record('b')],
  ]);
  await ledger.write([['files db', undefined]]);
  assert.deepEqual([...(await open()).stored], [['files web', record('a')]]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(dropped, []);
});

test('of writes at once nothing is lost', async (t) => {
  const { open } = place(t);
  const ledger = await open();
  await Promise.all(Array.from({ length: 20 }, (_, at) => ledger.write([[`files ${at}`, record(`${at}`)]])));
  await Promise.all(Array.from({ length: 10 }, (_, at) => ledger.write([[`files ${at}`, undefined]])));
  assert.deepEqual(
    [...(await open()).stored.keys()],
    Array.from({ length: 10 }, (_, at) => `files ${at + 10}`),
  );
});

const broken: [string, string][] = [
  ['no JSON', '{'],
  ['no records', '{"version":1,"trust_domain":"example.org"}'],
  ['a record that is none', '{"version":1,"trust_domain":"example.org","stored":[7]}'],
  ['a selector that is none', '{"version":1,"trust_domain":"example.org","stored":[{"selectors":["x"]}]}'],
  ['another version', '{"version":2,"trust_domain":"example.org","stored":[]}'],
  ['another trust domain', '{"version":1,"trust_domain":"other.org","stored":[]}'],
];
for (const [name, text] of broken) {
  test(`a ledger with ${name} is begun anew, and told of`, async (t) => {
    const { path, open, dropped } = place(t);
    writeFileSync(path, text);
    assert.equal((await open()).stored.size, 0);
    assert.deepEqual(dropped, [path]);
  });
}
