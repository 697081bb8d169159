import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { type Running, untilStopped } from '../../../src/run/signals.ts';
import { drivenClock, settle } from '../../support/clock.ts';

function rig() {
  const said: string[] = [];
  const signals = new EventEmitter();
  const clock = drivenClock();
  const start = Promise.withResolvers<Running>();
  const end = Promise.withResolvers<void>();
  const program: Running = {
    closed: end.promise,
    async close() {
      said.push('close');
      end.resolve();
    },
  };
  const asked = {
    reopen: () => void said.push('reopen'),
    reload: () => void said.push('reload'),
    stopping: (signal: string) => void said.push(signal),
  };
  let outcome = 'runs';
  const done = untilStopped(start.promise, asked, clock, signals).then(
    () => (outcome = 'stopped'),
    (error: Error) => (outcome = error.message),
  );
  return { said, signals, clock, start, end, program, done, outcome: () => outcome };
}

test('a program runs until SIGTERM, and hears the other signals from the beginning', async () => {
  const one = rig();
  one.signals.emit('SIGHUP');
  one.start.resolve(one.program);
  await settle();
  one.signals.emit('SIGUSR2');
  assert.equal(one.outcome(), 'runs');
  one.signals.emit('SIGTERM', 'SIGTERM');
  await one.done;
  assert.equal(one.outcome(), 'stopped');
  assert.deepEqual(one.said.slice(0, 4), ['reload', 'reopen', 'SIGTERM', 'close']);
  assert.deepEqual(one.signals.eventNames(), []);
});

test('a start that was told to stop has two seconds: then it is closed, or not waited for', async () => {
  const slow = rig();
  slow.signals.emit('SIGINT', 'SIGINT');
  await slow.clock.advance(1_999);
  assert.equal(slow.outcome(), 'runs');
  await slow.clock.advance(1);
  await slow.done;
  assert.equal(slow.outcome(), 'stopped');
  slow.start.reject(new Error('of no use to anybody'));

  const quick = rig();
  quick.signals.emit('SIGINT', 'SIGINT');
  await quick.clock.advance(1_000);
  quick.start.resolve(quick.program);
  await quick.done;
  assert.ok(quick.said.includes('close'));
});

test('what keeps a program from starting or going on is thrown, and it is closed', async () => {
  const never = rig();
  never.start.reject(new Error('no port'));
  await never.done;
  assert.equal(never.outcome(), 'no port');

  const later = rig();
  later.start.resolve(later.program);
  await settle();
  later.end.reject(new Error('evicted'));
  await later.done;
  assert.equal(later.outcome(), 'evicted');
  assert.deepEqual(later.said, ['close']);
});
