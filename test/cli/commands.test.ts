/** Every command holds together: it loads, explains itself, and its flags can be told apart. */
import { equal, match, notEqual, ok } from 'node:assert/strict';
import { suite, test } from 'node:test';
import { flagName } from '../../cli/command.ts';
import { commands, groupOf, resolve } from '../../cli/commands.ts';
import { helpOf } from '../../cli/parse.ts';
import { cliReference } from '../../cli/reference.ts';
import { run } from '../../cli/run.ts';
import { testPorts } from './support/ports.ts';

suite('commands', () => {
  for (const listed of commands) {
    test(`mutual ${listed.path} loads and explains itself`, async () => {
      const { summary, flags } = await listed.load();
      equal(summary, listed.summary, 'the summary is the same in both places');
      match(helpOf({ summary, flags, run: async () => 0 }, listed.path), new RegExp(`^Usage: mutual ${listed.path}`));
      const spellings = Object.entries(flags).flatMap(([key, { also = [] }]) => [key.toLowerCase(), ...also]);
      equal(new Set(spellings).size, spellings.length, `no two flags of one spelling: ${spellings.join(' ')}`);
      for (const [key, { means }] of Object.entries(flags)) {
        match(flagName(key), /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/);
        ok(means.length > 5 && !means.endsWith('.'), `--${flagName(key)} says what it means: ${means}`);
      }
    });
  }

  test('no path or alias stands for two commands', () => {
    const names = commands.flatMap(({ path, also = [] }) => [path, ...also]);
    equal(new Set(names).size, names.length);
  });

  for (const [words, path] of [
    ['entry create --x', 'entry create'],
    ['token generate', 'token create'],
    ['api fetch x509', 'fetch x509'],
    ['api fetch', 'fetch x509'],
    ['fetch -write d', 'fetch x509'],
    ['fetch jwt', 'fetch jwt'],
    ['api validate jwt', 'validate jwt'],
    ['api watch', 'watch'],
    ['healthcheck', 'health'],
    ['debug', 'debug info'],
    ['debug getinfo', 'debug info'],
    ['config explain', 'config explain'],
    ['config explain agent', 'config explain agent'],
    ['up', 'up'],
  ] as const) {
    test(`"${words}" is mutual ${path}`, () => {
      const called = resolve(words.split(' '));
      equal(called.kind === 'command' ? called.listed.path : called.kind, path);
    });
  }

  for (const words of [[], ['entry'], ['config']]) {
    test(`mutual ${words.join(' ')} alone lists what is below it, and is a fault`, async () => {
      const ports = testPorts();
      equal(await run(words, ports), 2);
      for (const { path } of groupOf(words.join(' '))) ok(ports.printed.err.includes(`  ${path} `), path);
      equal(ports.printed.out, '');
    });
  }

  for (const words of [
    '--help',
    'help',
    'entry --help',
    'entry create --help',
    'help entry create',
    'entry create -h',
    'server run --help',
  ]) {
    test(`mutual ${words} explains and is no fault`, async () => {
      const ports = testPorts();
      equal(await run(words.split(' '), ports), 0);
      match(ports.printed.out, /^Usage: mutual /);
      equal(ports.printed.err, '');
    });
  }

  test('the reference page has every command and every flag', async () => {
    const page = await cliReference();
    for (const { path } of commands) ok(page.includes(`\n## mutual ${path}\n`), path);
    ok(page.includes('`--x509-svid-ttl DURATION`'));
    notEqual(page.indexOf('https_web\\|https_spiffe') === -1 && page.indexOf('https_web, https_spiffe') === -1, true);
  });
});
