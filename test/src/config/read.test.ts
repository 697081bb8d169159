import assert from 'node:assert/strict';
import { test } from 'node:test';
import { count, duration, listOf, path, text, toggle } from '../../../src/config/kinds.ts';
import { inspectOptions, readOptions } from '../../../src/config/read.ts';
import {
  derived,
  type OptionsOf,
  optional,
  optionalSection,
  type Program,
  required,
  rowsOf,
  section,
  setting,
} from '../../../src/config.ts';
import { Fault } from '../../../src/errors.ts';

const table = {
  name: required(text, 'The name.'),
  dataDir: setting(path, 'data', 'The directory.'),
  socket: derived(path, '<dataDir>/s', (of) => `${of('dataDir')}/s`, 'The socket.', { env: 'THE_SOCKET' }),
  ttl: setting(duration(1000, 86_400_000), 3_600_000, 'The time.'),
  quick: setting(toggle, false, 'Whether.'),
  ids: setting(listOf(text), [], 'Names.'),
  secret: optional(text, 'The secret.', { secret: true }),
  limits: section('Limits.', {
    attest: setting(count(0, 100), 1, 'Attests.'),
    push: setting(count(0, 100), 5, 'Pushes.'),
  }),
  pop: optionalSection('Proof.', { key: required(path, 'The key.'), depth: setting(count(0, 9), 4, 'Depth.') }),
} as const;
type Options = OptionsOf<typeof table>;
const program: Program<typeof table> = {
  name: 'server',
  table,
  rules: [
    {
      needs: ['ttl', 'limits.push'],
      check(options, report) {
        if (options.limits.push > 50) report.fault('limits.push', 'is more than a server can take');
        if (options.ttl > 7_200_000) report.warn('ttl', 'is long');
      },
    },
  ],
};

test('defaults fill what nothing gives, and derived ones follow the final values', async () => {
  const { options, origins } = await readOptions(program, { flags: { name: 'n', dataDir: '/d' } });
  const expected: Options = {
    name: 'n',
    dataDir: '/d',
    socket: '/d/s',
    ttl: 3_600_000,
    quick: false,
    ids: [],
    limits: { attest: 1, push: 5 },
  };
  assert.deepEqual(options, expected);
  assert.equal('secret' in options, false);
  assert.deepEqual(origins.get('dataDir'), { from: 'flag', at: '--data-dir' });
  assert.deepEqual(origins.get('ttl'), { from: 'default', at: 'default' });
});

test('a flag wins over a variable, that over the file, that over the default', async () => {
  const file = { path: 'c.yaml', text: 'name: file\nlimits:\n  attest: 3\n  push: 3\n' };
  const env = { MUTUAL_NAME: 'env', MUTUAL_LIMITS_ATTEST: '2' };
  const { options, origins } = await readOptions(program, { flags: { name: 'flag' }, env, file });
  assert.equal(options.name, 'flag');
  assert.deepEqual(options.limits, { attest: 2, push: 3 });
  assert.deepEqual(origins.get('limits.push'), { from: 'file', at: 'c.yaml:4:9' });
});

test('flags are known by their name and as a parser of command lines spells them', async () => {
  const { options } = await readOptions(program, {
    flags: { name: 'n', 'limits-attest': '7', limitsPush: '8', quick: true, unrelated: 1 },
  });
  assert.deepEqual([options.limits, options.quick], [{ attest: 7, push: 8 }, true]);
});

test('lists repeat their flag, have commas in a variable, and are lists in a file', async () => {
  const read = async (sources: object) =>
    (await readOptions(program, { flags: { name: 'n' }, ...sources })).options.ids;
  assert.deepEqual((await readOptions(program, { flags: { name: 'n', ids: ['a', 'b,c'] } })).options.ids, ['a', 'b,c']);
  assert.deepEqual(await read({ env: { MUTUAL_IDS: 'a, b' } }), ['a', 'b']);
  assert.deepEqual(await read({ file: { path: 'c.yaml', text: 'ids: [a, b]' } }), ['a', 'b']);
});

test('an empty variable is as good as none', async () => {
  const { options } = await readOptions(program, { flags: { name: 'n' }, env: { MUTUAL_TTL: '', THE_SOCKET: '/x' } });
  assert.deepEqual([options.ttl, options.socket], [3_600_000, '/x']);
});

test('an optional section is there once any source gives one of its keys, and then wants its required ones', async () => {
  assert.equal('pop' in (await readOptions(program, { flags: { name: 'n' } })).options, false);
  const { options } = await readOptions(program, { flags: { name: 'n', popKey: '/k' } });
  assert.deepEqual(options.pop, { key: '/k', depth: 4 });
  for (const sources of [
    { flags: { name: 'n', popDepth: '2' } },
    { flags: { name: 'n' }, file: { path: 'c.yaml', text: 'pop:\n' } },
  ]) {
    const { problems } = await inspectOptions(program, sources);
    assert.deepEqual(problems, [
      'pop.key: is not set; give --pop-key, MUTUAL_POP_KEY, or pop.key in a configuration file',
    ]);
  }
});

test('the options are frozen all the way down', async () => {
  const { options } = await readOptions(program, { flags: { name: 'n' } });
  assert.throws(() => Object.assign(options.limits, { attest: 9 }), TypeError);
  assert.throws(() => (options.ids as string[]).push('x'), TypeError);
  assert.throws(() => Object.assign(options, { name: 'x' }), TypeError);
});

test('every fault is told at once, each with its place, the file from top to bottom', async () => {
  const file = {
    path: 'c.yaml',
    text: 'ttl: 5\nlimits:\n  attest: many\n  pushes: 3\nquick: {a: 1}\nids: a\ndataDir:\n',
  };
  const { options, problems } = await inspectOptions(program, {
    flags: { limitsPush: '-1' },
    env: { MUTUAL_SOCKET: 'x' },
    file,
  });
  assert.equal(options, undefined);
  assert.deepEqual(problems, [
    'c.yaml:1:6: ttl: "5" is not a duration, which is whole numbers with units d, h, m, s or ms, such as 90s or 1h30m',
    'c.yaml:3:11: limits.attest: "many" is not a whole number from 0 to 100',
    'c.yaml:4:3: limits.pushes: is not an option; did you mean "limits.push"?',
    'c.yaml:5:8: quick: is a switch and has no keys below it',
    'c.yaml:6:6: ids: "a" is not a list; write [a]',
    'c.yaml:7:9: dataDir: is empty; give a value or leave it out',
    '--limits-push: "-1" is not a whole number from 0 to 100',
    'name: is not set; give --name, MUTUAL_NAME, or name in a configuration file',
  ]);
});

test('readOptions throws one fault that lists them all', async () => {
  await assert.rejects(readOptions(program, { flags: { ttl: 'x', limitsPush: 'y' } }), (error) => {
    assert.ok(error instanceof Fault);
    assert.equal(error.code, 'config/invalid');
    assert.match(
      error.message,
      /^the configuration of the server cannot be used: 3 faults:\n {2}--ttl: .*\n {2}--limits-push: .*\n {2}name: /,
    );
    return true;
  });
});

const unknown: [string, string][] = [
  ['data_dir: x', 'c.yaml:1:1: data_dir: is not an option; did you mean "dataDir"?'],
  ['attest: 5', 'c.yaml:1:1: attest: is not an option; did you mean "limits.attest"?'],
  ['quux: 5', 'c.yaml:1:1: quux: is not an option'],
  ['limits: 5', 'c.yaml:1:9: limits: is a section; give keys below it'],
  ['__proto__: {x: 1}', 'c.yaml:1:1: __proto__: is not an option'],
  ['constructor: 1', 'c.yaml:1:1: constructor: is not an option'],
];
for (const [given, says] of unknown) {
  test(`a file with ${JSON.stringify(given)} is refused: ${says}`, async () => {
    const { problems } = await inspectOptions(program, { flags: { name: 'n' }, file: { path: 'c.yaml', text: given } });
    assert.deepEqual(problems, [says]);
  });
}

test('a broken file is told beside the faults of the other sources', async () => {
  const { problems } = await inspectOptions(program, {
    flags: { ttl: 'x', name: 'n' },
    file: { path: 'c.yaml', text: 'a: "\n' },
  });
  assert.equal(problems.length, 2);
});

test('checks across options are left out where one of them is itself at fault', async () => {
  const { problems, warnings } = await inspectOptions(program, { flags: { name: 'n', ttl: 'x', limitsPush: '60' } });
  assert.equal(problems.length, 1);
  assert.deepEqual(warnings, []);
  const both = await inspectOptions(program, {
    flags: { name: 'n', ttl: '3h' },
    file: { path: 'c.yaml', text: 'limits: {push: 60}' },
  });
  assert.deepEqual(both.problems, ['c.yaml:1:16: limits.push: is more than a server can take']);
  assert.deepEqual(both.warnings, ['--ttl: is long']);
});

test('a secret is never in a fault', async () => {
  const { problems } = await inspectOptions(program, { flags: { name: 'n' }, env: { MUTUAL_SECRET: 'hunter2\0' } });
  assert.deepEqual(problems, ['MUTUAL_SECRET: is not a text that can be used (the value is not shown)']);
});

test('a variable that is nearly one of ours is a warning, not silence', async () => {
  const { warnings } = await inspectOptions(program, {
    flags: { name: 'n' },
    env: { MUTUAL_DATADIR: 'x', MUTUAL_OTHER: 'y', PATH: '/' },
  });
  assert.deepEqual(warnings, ['MUTUAL_DATADIR: is not read; did you mean MUTUAL_DATA_DIR?']);
});

test('flags and variables are named after the path', () => {
  const rows = rowsOf(table).map(({ path: at, flag, env }) => [at, flag, env]);
  assert.deepEqual(rows.slice(2, 3), [['socket', '--socket', 'THE_SOCKET']]);
  assert.deepEqual(rows.slice(-1), [['pop.depth', '--pop-depth', 'MUTUAL_POP_DEPTH']]);
});
