/** The thread of the embedded database when it is begun before it is known what it shall open. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import { openStore } from '../../../server/store/open.ts';
import { beginThread, dropThread, takeThread } from '../../../server/store/thread.ts';
import { askThreadsToCollect } from '../../../src/run/collect.ts';
import { root } from '../../../tools/run.ts';

test('the store that is opened next runs on the thread that was begun, and another on one of its own', async () => {
  beginThread();
  beginThread();
  const taken = takeThread();
  const other = takeThread();
  assert.notEqual(taken, other);
  assert.deepEqual([taken.threadName, other.threadName], ['store', 'store']);
  await Promise.all([taken.terminate(), other.terminate()]);

  beginThread();
  const stores = await Promise.all([1, 2].map(() => openStore({ url: 'sqlite::memory:' })));
  assert.equal(await stores[0]!.journal.put('a', 'one', 0), true);
  assert.equal(await stores[1]!.journal.get('a'), undefined);
  await Promise.all(stores.map((store) => store.close()));
});

test('a thread that was dropped serves nobody', async () => {
  beginThread();
  dropThread();
  const store = await openStore({ url: 'sqlite::memory:' });
  await store.ping();
  await store.close();
});

test('a thread that nobody takes keeps no program alive', async () => {
  const thread = JSON.stringify(join(root, 'server', 'store', 'thread.ts'));
  const script = `const { beginThread } = await import(${thread}); beginThread(); console.log('begun');`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 60_000,
  });
  assert.equal(stdout, 'begun\n');
});

test('a thread that is asked to collect has a smaller heap and answers as before', async () => {
  beginThread();
  const thread = (globalThis as { [key: symbol]: unknown })[Symbol.for('mutual.storeThread')] as Worker;
  const store = await openStore({ url: 'sqlite::memory:' });
  assert.equal(await store.journal.put('a', 'one', 0), true);
  const { total_heap_size: before } = await thread.getHeapStatistics();
  askThreadsToCollect();
  assert.equal(await store.journal.put('b', 'two', 0), true);
  const { total_heap_size: after } = await thread.getHeapStatistics();
  assert.ok(after < before - (1 << 20), `${after} of ${before} bytes`);
  assert.ok(await store.journal.get('a'));
  await store.close();
  askThreadsToCollect();
});
