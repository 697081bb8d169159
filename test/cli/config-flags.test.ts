import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from '../../cli/command.ts';
import { tableFlags } from '../../cli/config-flags.ts';
import { helpOf, parse } from '../../cli/parse.ts';
import { table } from '../support/options.ts';

const command: Command = {
  summary: 'Try',
  flags: tableFlags(table, { name: ['title'] }),
  run: async () => 0,
};

test('an option is a flag that says what it takes, its default and its variable', () => {
  const help = helpOf(command, 'try').replaceAll(/\s+/g, ' ');
  for (const line of [
    '--config <FILE> A configuration file, YAML or JSON',
    '--name <TEXT> The name (or variable MUTUAL_NAME)',
    '--kind <a|b> The kind (one of a, b; default a; or variable MUTUAL_KIND)',
    '--ids <TEXT> Names (may be repeated; default none; or variable MUTUAL_IDS)',
    '--quick [true|false] Whether (default false; or variable MUTUAL_QUICK)',
    '--log-file <TEXT> The file (or variable MUTUAL_LOG_FILE)',
  ])
    assert.ok(help.includes(line), `${line}\n${help}`);
});

test('what is given stays text, for the table to read', () => {
  const parsed = parse(command, 'try', ['--ids', 'a', '--ids', 'b', '--quick', '-title', 'x']);
  assert.ok('values' in parsed);
  const { ids, quick, name, kind } = parsed.values;
  assert.deepEqual({ ids, quick, name, kind }, { ids: ['a', 'b'], quick: 'true', name: 'x', kind: undefined });
});
