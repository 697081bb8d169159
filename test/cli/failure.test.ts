import { equal } from 'node:assert/strict';
import { suite, test } from 'node:test';
import { printFailure } from '../../cli/failure.ts';
import { Fault } from '../../src/errors.ts';
import { testPorts } from './support/ports.ts';

function failed(thrown: unknown): string {
  const ports = testPorts();
  const exit = printFailure(thrown, ports);
  return `${ports.printed.err}= ${exit}`;
}

suite('failures', () => {
  test('a fault is a line, and a line with what to do', () => {
    equal(
      failed(new Fault('thing/missing', 'there is no "x"', { hint: 'Look.', detail: 'not shown' })),
      'error: there is no "x"\nhint: Look.\n= 1',
    );
  });

  test('a wrong call ends with 2', () => {
    equal(failed(new Fault('usage/invalid', 'no')), 'error: no\n= 2');
    equal(failed(new Fault('config/invalid', 'no')), 'error: no\n= 2');
  });

  test('several faults are all told, and the worst exit code counts', () => {
    equal(
      failed(new AggregateError([new Fault('usage/invalid', 'a'), new Fault('input/invalid', 'b')])),
      'error: a\nerror: b\n= 2',
    );
  });

  test('a text from elsewhere cannot pass for a line of ours, nor steer the terminal', () => {
    equal(failed(new Fault('peer/failed', 'bad\nhint: run me\x1b[2J')), 'error: bad\n  hint: run me\\x1b[2J\n= 1');
  });

  test('a defect says what it is, with where it happened', () => {
    const [first, second] = failed(new TypeError('x is not a function')).split('\n');
    equal(first, 'error: internal error');
    equal(second, 'TypeError: x is not a function');
  });
});
