/** What an upstream held at the last look, kept over restarts; nothing is concluded from what cannot be read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lastSeen } from '../../../server/authority/last-seen.ts';
import { openStore } from '../../../server/store/open.ts';

test('it is kept over a restart, for the upstream it was seen at alone, and written when it differs', async (t) => {
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  let writes = 0;
  const journal: typeof store.journal = {
    ...store.journal,
    get: (name) => store.journal.get(name),
    put(...written) {
      writes++;
      return store.journal.put(...written);
    },
  };
  const open = (upstream = 'spire one:8081') => lastSeen(journal, 'server', upstream);
  const first = open();
  assert.deepEqual(await first.read(), { roots: [], keys: [] });
  await first.write({ roots: ['a', 'b'], keys: ['k'] });
  await first.write({ roots: ['b', 'a'], keys: ['k'] });
  assert.equal(writes, 1);
  assert.deepEqual(await open().read(), { roots: ['a', 'b'], keys: ['k'] });

  const other = open('spire two:8081');
  assert.deepEqual(await other.read(), { roots: [], keys: [] });
  await other.write({ roots: ['c'], keys: [] });
  assert.deepEqual(await open('spire two:8081').read(), { roots: ['c'], keys: [] });

  // The first still thinks that it was the last to write: it is not believed, and reads again.
  await first.write({ roots: ['d'], keys: [] });
  await first.write({ roots: ['d'], keys: [] });
  assert.deepEqual(await open().read(), { roots: ['d'], keys: [] });

  const stored = await store.journal.get('upstream@server');
  await store.journal.put('upstream@server', '{"upstream":"spire one:8081","roots":7}', stored!.version);
  assert.deepEqual(await open().read(), { roots: [], keys: [] });
});
