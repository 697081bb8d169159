import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explain, referencePage } from '../../../src/config/describe.ts';
import { inspectOptions, readOptions } from '../../../src/config/read.ts';
import { table } from '../../support/options.ts';

const program = { name: 'server', table, rules: [] };

test('explain gives each value with where it came from, and no secret', async () => {
  const reading = await readOptions(program, {
    flags: { name: 'n' },
    env: { MUTUAL_SECRET: 'hunter2' },
    file: { path: 'c.yaml', text: 'ids: [x, y]' },
  });
  const rows = explain(table, reading).map(({ path, value, from }) => `${path}|${value}|${from}`);
  assert.deepEqual(rows, [
    'name|n|--name',
    'kind|a|default',
    'ids|x,y|c.yaml:1:6',
    'quick|false|default',
    'secret|(set, not shown)|MUTUAL_SECRET',
    'log.file||',
  ]);
});

test('explain works without a reading, and with one that failed', async () => {
  assert.equal(explain(table).length, 6);
  const failed = await inspectOptions(program, { flags: { kind: 'x' } });
  assert.deepEqual(
    explain(table, failed).map(({ value }) => value),
    ['', '', '', '', '', ''],
  );
});

test('the reference page has every option with its flag, variable, default and meaning', () => {
  const page = referencePage('server', table);
  assert.match(page, /^# Options of the server\n/);
  assert.match(page, /\| `name` \| text \| must be given \| The name\. \| `--name`<br>`MUTUAL_NAME` \|/);
  assert.match(page, /\| `kind` \| `a`, `b` \| `a` \|/);
  assert.match(page, /## log\n\nThe log\.\n\n\| key .*\n.*\n\| `log\.file` \|/);
});
