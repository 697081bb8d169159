import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from '../../cli/command.ts';
import { tableFlags } from '../../cli/config-flags.ts';
import { helpOf, parse } from '../../cli/parse.ts';
import { choice, listOf, text, toggle } from '../../src/config/kinds.ts';
import { optional, required, section, setting } from '../../src/config.ts';

const command: Command = {
  summary: 'Try',
  flags: tableFlags(
    {
      name: required(text, 'The name.'),
      kind: setting(choice('a', 'b'), 'a', 'The kind.'),
      ids: setting(listOf(text), [], 'Names.'),
      quick: setting(toggle, false, 'Whether.'),
      secret: optional(text, 'The secret.', { secret: true }),
      log: section('The log.', { file: optional(text, 'The file.') }),
    },
    { name: ['title'] },
  ),
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
