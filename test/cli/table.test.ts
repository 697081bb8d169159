import { equal } from 'node:assert/strict';
import { suite, test } from 'node:test';
import { printDeadline, printSeconds } from '../../cli/duration.ts';
import { block, count, table } from '../../cli/table.ts';
import { visible } from '../../cli/visible.ts';
import { testPorts } from './support/ports.ts';

const ports = testPorts();

suite('text for people', () => {
  test('a table has no borders and no blanks at line ends', () => {
    equal(
      table(
        ports,
        ['A', 'LONG'],
        [
          ['wide one', 'x'],
          ['y', ''],
        ],
      ),
      'A         LONG\nwide one  x\ny\n',
    );
  });

  test('a block leaves out what is not there, and gives a list a line an item', () => {
    equal(
      block(ports, [
        ['One', 'a'],
        ['Longer', ['b', 'c']],
        ['Gone', undefined],
        ['Empty', ''],
      ]),
      'One     a\nLonger  b\n        c\n',
    );
  });

  test('what a peer sent cannot steer the terminal', () => {
    equal(visible('a\x1b[2Jb\r\x07\u009b\u202ec\nd'), 'a\\x1b[2Jb\\x0d\\x07\\x9b\\u202ec\nd');
    equal(table(ports, ['A'], [['\x1b[31m']]), 'A\n\\x1b[31m\n');
  });

  for (const [seconds, text] of [
    [0, '0s'],
    [59, '59s'],
    [60, '1m'],
    [3723, '1h2m3s'],
    [86_400 * 2 + 3600 + 5, '2d1h'],
    [-90, '-1m30s'],
  ] as const) {
    test(`${seconds} seconds read ${text}`, () => equal(printSeconds(seconds), text));
  }

  test('a deadline says how far it is', () => {
    equal(printDeadline(100, 40_000), '1970-01-01T00:01:40Z (in 1m)');
    equal(printDeadline(100, 110_000), '1970-01-01T00:01:40Z (10s ago)');
    equal(printDeadline(0, 5), 'never');
  });

  test('one is one and two are two', () => {
    equal(
      `${count(1, 'entry', 'entries')}, ${count(2, 'entry', 'entries')}, ${count(0, 'entry', 'entries')}`,
      '1 entry, 2 entries, 0 entries',
    );
  });
});
