import assert from 'node:assert/strict';
import { test } from 'node:test';
import { count, text } from '../../../src/config/kinds.ts';
import { liveOptions } from '../../../src/config/live.ts';
import { readOptions } from '../../../src/config/read.ts';
import { reloader } from '../../../src/config/reload.ts';
import {
  type OptionsOf,
  optional,
  optionalSection,
  type Program,
  reloadable,
  section,
  setting,
} from '../../../src/config.ts';
import { Fault } from '../../../src/errors.ts';

const table = {
  name: setting(text, 'one', 'A name.'),
  ...reloadable({
    most: setting(count(0, 100), 10, 'The most.'),
    word: optional(text, 'A word.'),
    limits: section('Limits.', { calls: setting(count(0, 100), 5, 'Calls.') }),
    extra: optionalSection('More.', { depth: setting(count(0, 100), 1, 'How deep.') }),
  }),
  mixed: section('Both.', {
    fixed: setting(count(0, 100), 1, 'Stays.'),
    ...reloadable({ moving: setting(count(0, 100), 1, 'Moves.') }),
  }),
  ...reloadable({ pin: optional(text, 'A secret.', { secret: true, variableOnly: true }) }),
} as const;
type Options = OptionsOf<typeof table>;
const program: Program<typeof table, Options> = {
  name: 'test',
  table,
  rules: [
    {
      needs: ['most', 'mixed.fixed'],
      check({ most, mixed }, report) {
        if (most < mixed.fixed) report.fault('most', `is below mixed.fixed, which is ${mixed.fixed}`);
      },
    },
  ],
};
const read = async (flags: object, env: Record<string, string> = {}): Promise<Options> =>
  (await readOptions(program, { flags: flags as never, env })).options;

test('what is marked changes for whoever reads it, whole; the rest keeps the value of the start', async () => {
  const live = liveOptions(program, await read({}));
  const { options } = live;
  const { limits, mixed } = options;
  const offer = live.offer(
    await read({ name: 'two', most: '20', 'limits-calls': '7', 'mixed-fixed': '3', 'mixed-moving': '4' }),
  );
  assert.equal(options.most, 10, 'nothing before it is accepted');
  assert.deepEqual([offer.options.most, offer.options.name], [20, 'one'], 'what would be');
  offer.accept();
  assert.deepEqual([options.name, options.most, limits.calls, mixed.fixed, mixed.moving], ['one', 20, 7, 1, 4]);
  assert.deepEqual(offer.differences, [
    { path: 'name', from: 'one', to: 'two', live: false },
    { path: 'most', from: '10', to: '20', live: true },
    { path: 'limits.calls', from: '5', to: '7', live: true },
    { path: 'mixed.fixed', from: '1', to: '3', live: false },
    { path: 'mixed.moving', from: '1', to: '4', live: true },
  ]);
});

test('what is optional comes and goes, sections too; a secret is not told', async () => {
  const live = liveOptions(program, await read({}));
  const { options } = live;
  assert.deepEqual([options.word, options.extra, options.pin], [undefined, undefined, undefined]);
  const there = live.offer(await read({ word: 'yes', 'extra-depth': '3' }, { MUTUAL_PIN: '1234' }));
  there.accept();
  assert.deepEqual([options.word, options.extra?.depth, options.pin], ['yes', 3, '1234']);
  assert.deepEqual(there.differences.at(-1), { path: 'pin', from: '', to: '(not shown)', live: true });
  const gone = live.offer(await read({}));
  gone.accept();
  assert.deepEqual([options.word, options.extra, options.pin], [undefined, undefined, undefined]);
  assert.deepEqual(
    gone.differences.map(({ path, from }) => [path, from]),
    [
      ['word', 'yes'],
      ['extra.depth', '3'],
      ['pin', '(not shown)'],
    ],
  );
  assert.deepEqual(live.offer(await read({})).differences, []);
});

test('what does not go with what stays is refused whole', async () => {
  const live = liveOptions(program, await read({ 'mixed-fixed': '5' }));
  const next = await read({ most: '2', 'mixed-fixed': '1', word: 'new' });
  assert.throws(
    () => live.offer(next),
    (error: unknown) => {
      assert.ok(error instanceof Fault);
      assert.match(error.message, /^it cannot be taken while the test runs: most: is below mixed\.fixed, which is 5$/);
      return true;
    },
  );
  assert.deepEqual([live.options.most, live.options.word], [10, undefined]);
});

test('a reload says each change, what waits for the next start, and why it took nothing; one comes after the other', async () => {
  const lines: [string, string, Readonly<Record<string, unknown>>][] = [];
  const note =
    (level: string) =>
    (fields: Readonly<Record<string, unknown>>, event: string): void => {
      lines.push([level, event, fields]);
    };
  const log = { info: note('info'), warn: note('warn'), error: note('error') };
  const live = liveOptions(program, await read({}));
  let flags: object = {};
  const prepared: number[] = [];
  let refused: Fault | undefined;
  const reload = reloader({
    read: async () => ({ ...(await readOptions(program, { flags: flags as never })) }),
    live,
    async prepare({ most }) {
      if (refused) throw refused;
      return () => prepared.push(most);
    },
    log,
  });

  flags = { most: '20', name: 'two' };
  await Promise.all([reload(), reload()]);
  assert.deepEqual(prepared, [20, 20]);
  assert.deepEqual(lines.splice(0), [
    [
      'warn',
      'option changed in the configuration: it counts from the next start on',
      { option: 'name', from: 'one', to: 'two' },
    ],
    ['info', 'option changed', { option: 'most', from: '10', to: '20' }],
    ['info', 'configuration read again', { changed: 1 }],
    ['info', 'configuration read again', { changed: 0 }],
  ]);

  flags = { most: 'many' };
  await reload();
  const [[level, event, { reason }]] = lines.splice(0) as [(typeof lines)[0]];
  assert.deepEqual([level, event], ['error', 'configuration not taken: the old one stays']);
  assert.match(String(reason), /the configuration of the test cannot be used: --most: "many" is not/);

  flags = { most: '30' };
  refused = new Fault('config/invalid', 'a file is missing');
  await reload();
  assert.equal(lines.splice(0)[0]![2].reason, 'a file is missing');
  assert.equal(live.options.most, 20, 'nothing of it');
});
