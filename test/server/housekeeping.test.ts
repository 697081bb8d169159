/** What expires goes, in its time; what must stay stays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { followWorld } from '../../server/entries/world.ts';
import { keepHouse } from '../../server/housekeeping.ts';
import { openStore } from '../../server/store/open.ts';
import type { Store } from '../../server/store/store.ts';
import { silentLog } from '../../src/log.ts';
import { systemRandom } from '../../src/run/random.ts';
import { draft, id, node } from '../suites/store.ts';
import { drivenClock } from '../support/clock.ts';

const minute = 60_000;

async function house(
  t: { after(work: () => Promise<void>): void },
  pruneNodesExpiredFor?: number,
  change: (store: Store) => Partial<Store> = () => ({}),
) {
  const clock = drivenClock();
  const real = await openStore({ url: 'sqlite::memory:' });
  const store = { ...real, ...change(real) };
  const world = await followWorld(real, (error) => assert.fail(String(error)));
  const errors: unknown[] = [];
  const log = { ...silentLog, error: (fields: object) => errors.push(fields) };
  const stop = new AbortController();
  const options = { pruneNodesExpiredFor } as never;
  const running = keepHouse(
    { options, store, world, clock, random: { ...systemRandom, unit: () => 0.5 }, log },
    stop.signal,
  );
  running.catch(() => {});
  t.after(async () => {
    stop.abort(new Error('the test ended'));
    await running.catch(() => {});
    world.close();
    await real.close();
  });
  return {
    clock,
    store: real,
    world,
    errors,
    seconds: () => Math.floor(clock.now() / 1000),
    /** Lets a round of housekeeping begin, and waits until its last write is done. */
    async round() {
      await clock.advance(5 * minute);
      // The store answers in order: what is asked last is answered last.
      while (clock.waiting === 0) await real.log.position().then(() => new Promise((resolve) => setImmediate(resolve)));
      await world.reach();
    },
  };
}

test('expired entries and tokens go, with the aliases of tokens never used; others stay', async (t) => {
  const { store, world, round, seconds } = await house(t);
  const stamp = { id: 'alias', now: seconds() };
  await store.entries.create([
    { draft: draft('/old', { id: 'old', expiresAt: seconds() + 100 }), stamp },
    { draft: draft('/later', { id: 'later', expiresAt: seconds() + 10_000 }), stamp },
    { draft: draft('/never', { id: 'never' }), stamp },
  ]);
  await store.tokens.create(
    { value: 'short', expiresAt: seconds() + 100 },
    { draft: draft('/alias', { parentId: id('/spire/agent/join_token/short') }), stamp },
  );
  await store.tokens.create({ value: 'long', expiresAt: seconds() + 10_000 });
  await world.reach();
  assert.equal(world.entries.size, 4);
  await round();
  assert.deepEqual([...world.entries.keys()].sort(), ['later', 'never']);
  assert.equal(await store.tokens.get('short'), undefined);
  assert.ok(await store.tokens.get('long'));
});

test('more expired entries than one batch go in one round', async (t) => {
  const { store, world, round, seconds } = await house(t);
  await store.entries.create(
    Array.from({ length: 2500 }, (_, index) => ({
      draft: draft(`/${index}`, { expiresAt: seconds() + 1 }),
      stamp: { id: `e${index}`, now: 1 },
    })),
  );
  await round();
  assert.equal(world.entries.size, 0);
});

test('Vault CVE-2021-29653 nodes expired long ago go when it is configured: never banned ones, nor those that cannot come back', async (t) => {
  for (const configured of [false, true]) {
    const { store, world, round, seconds } = await house(t, configured ? 10 * minute : undefined);
    const expiresAt = seconds() - 3600;
    await store.nodes.attest(node('/spire/agent/x509pop/gone', { expiresAt }));
    await store.nodes.attest(node('/spire/agent/x509pop/banned', { expiresAt }));
    await store.nodes.ban(id('/spire/agent/x509pop/banned'));
    await store.nodes.attest(node('/spire/agent/join_token/once', { expiresAt, canReattest: false }));
    await store.nodes.attest(node('/spire/agent/x509pop/recent', { expiresAt: seconds() }));
    await round();
    const left = [...world.nodes.keys()].map((one) => one.split('/').at(-1));
    assert.deepEqual(left, configured ? ['banned', 'once', 'recent'] : ['gone', 'banned', 'once', 'recent']);
  }
});

test('a node that attests again while others are removed is not removed', async (t) => {
  const two = id('/spire/agent/x509pop/two');
  const { store, world, round, seconds } = await house(t, minute, (real) => ({
    nodes: {
      ...real.nodes,
      async delete(gone) {
        if (gone === two) return real.nodes.delete(gone);
        const done = await real.nodes.delete(gone);
        await real.nodes.attest(node('/spire/agent/x509pop/two', { expiresAt: 9_999_999_999 }));
        await world.reach();
        return done;
      },
    },
  }));
  for (const path of ['one', 'two'])
    await store.nodes.attest(node(`/spire/agent/x509pop/${path}`, { expiresAt: seconds() - 3600 }));
  await round();
  assert.deepEqual([...world.nodes.keys()], [two]);
});

test('a failure is logged, and the next round does what was left', async (t) => {
  let failing = true;
  const { store, world, round, seconds, errors } = await house(t, undefined, (real) => ({
    entries: {
      ...real.entries,
      prune: (...args) => (failing ? Promise.reject(new Error('disk')) : real.entries.prune(...args)),
    },
  }));
  await store.entries.create([{ draft: draft('/old', { expiresAt: seconds() + 1 }), stamp: { id: 'e', now: 1 } }]);
  await round();
  assert.deepEqual([world.entries.size, errors.length], [1, 1]);
  failing = false;
  await round();
  assert.deepEqual([world.entries.size, errors.length], [0, 1]);
});
