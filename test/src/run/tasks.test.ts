import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tasks } from '../../../src/run/tasks.ts';

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

test('closing stops every task and waits for it', async () => {
  const all = tasks();
  const ended: string[] = [];
  for (const name of ['a', 'b']) {
    all.run(name, async (signal) => {
      await untilAborted(signal);
      await new Promise<void>((resolve) => setImmediate(resolve));
      ended.push(name);
    });
  }
  await all.close();
  assert.deepEqual(ended, ['a', 'b']);
  await all.ended;
});

test('the first task that fails stops the others, and is the reason of the end', async () => {
  const all = tasks();
  let stopped = false;
  all.run('steady', async (signal) => {
    await untilAborted(signal);
    stopped = true;
  });
  all.run('broken', async () => {
    throw new Error('first failure');
  });
  await assert.rejects(all.ended, /first failure/);
  await all.close();
  assert.ok(stopped);
});

test('what a task throws because it was stopped is no failure', async () => {
  const all = tasks();
  all.run('a', async (signal) => {
    await untilAborted(signal);
    throw signal.reason;
  });
  await all.close();
  await all.ended;
});
