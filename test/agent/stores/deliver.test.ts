/** What is put where and when, and what is tried again: with a server and a store that do as the test says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeDelivery } from '../../../agent/stores/deliver.ts';
import type { Ledger, Stored } from '../../../agent/stores/ledger.ts';
import type { Place, Secret, SvidStore } from '../../../agent/stores/svid-store.ts';
import { Fault } from '../../../src/errors.ts';
import type { Log } from '../../../src/log.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';
import { agentRig, type RigOptions } from '../support/agent-rig.ts';
import { domain } from '../support/fake-server.ts';
import { middling } from '../support/random.ts';

/** A store in memory, which fails while it is told to. */
function memoryStore() {
  const there = new Map<string, Secret>();
  const done: string[] = [];
  const state: { there: typeof there; done: string[]; fails: Error | undefined; hangs: boolean } = {
    there,
    done,
    fails: undefined,
    hangs: false,
  };
  const work = async (what: string): Promise<void> => {
    done.push(what);
    if (state.hangs) await new Promise(() => {});
    if (state.fails !== undefined) throw state.fails;
  };
  const store: SvidStore<Place> = {
    name: 'memory',
    place: (settings) => ({ key: settings.required('at') }),
    async put({ key }, secret) {
      await work(`put ${key}`);
      there.set(key, secret);
    },
    async remove({ key }) {
      await work(`remove ${key}`);
      there.delete(key);
    },
    close: () => void done.push('closed'),
  };
  return Object.assign(state, { store });
}

const stored = (id: string, ...at: string[]) => ({
  id,
  storeSvid: true,
  selectors: at.map((one) => parseSelector(`memory:at:${one}`)),
});

/** A ledger that outlives an agent, as one on disk does. */
function memoryLedger(): Ledger {
  const stored = new Map<string, Stored>();
  return {
    stored,
    async write(changes) {
      for (const [key, record] of changes) {
        if (record === undefined) stored.delete(key);
        else stored.set(key, record);
      }
    },
  };
}

async function delivering(options: RigOptions & { ledger?: Ledger; memory?: ReturnType<typeof memoryStore> } = {}) {
  const rig = await agentRig(options);
  const ledger = options.ledger ?? memoryLedger();
  const memory = options.memory ?? memoryStore();
  const lines: string[] = [];
  const write = (fields: object, event: string): void => void lines.push(`${event} ${JSON.stringify(fields)}`);
  const log = { info: write, warn: write, error: write, debug: write } as unknown as Log;
  const stores = new Map([['memory', { store: memory.store, settings: ['at'] }]]);
  const delivery = makeDelivery({ clock: rig.clock, random: middling(), log, cache: rig.cache, stores, ledger });
  const end = new AbortController();
  let running: Promise<void> | undefined;
  return {
    ...rig,
    memory,
    delivery,
    ledger,
    lines,
    async calm(ms = 0) {
      await rig.clock.advance(ms);
      for (let turn = 0; turn < 5; turn++) await rig.clock.advance(0);
    },
    begin() {
      running = delivery.run(end.signal).catch(() => {});
    },
    async stop() {
      end.abort(new Error('over'));
      await running;
      rig.stop();
    },
  };
}

test('an entry that is stored is put, with its bundles, and is no process’s; its renewal and its end follow', async () => {
  const d = await delivering();
  const other = testAuthority({ trustDomain: 'other.org', now: d.clock.now() });
  d.server.putBundle(other.bundle());
  d.server.put({ ...stored('a', 'one'), federatesWith: [parseTrustDomain('other.org')] });
  d.begin();
  await d.start();
  await d.calm();
  const first = d.memory.there.get('one')!;
  assert.deepEqual(first.bundle, d.cache.ownBundle.value);
  assert.deepEqual(
    first.federated.map(({ trustDomain }) => trustDomain),
    ['other.org'],
  );
  assert.deepEqual(d.cache.identities([parseSelector('memory:at:one')]).entries, []);
  d.delivery.check();

  await d.calm(3_000_000);
  const second = d.memory.there.get('one')!;
  assert.notDeepEqual(second.chain, first.chain, 'renewed');
  assert.notDeepEqual(second.pkcs8, first.pkcs8);

  d.memory.done.length = 0;
  d.server.putBundle(other.bundle({ refreshHint: 77 }));
  await d.calm();
  assert.deepEqual(d.memory.done, [], 'nothing that lies there is another');
  const next = testAuthority({ trustDomain: 'other.org', now: d.clock.now() });
  d.server.putBundle(next.bundle());
  await d.calm();
  assert.deepEqual(d.memory.done, ['put one']);
  assert.deepEqual(d.memory.there.get('one')!.federated[0]!.x509Authorities[0]!.certificate, next.der);

  d.server.remove('a');
  await d.calm();
  assert.deepEqual(d.memory.done, ['put one', 'remove one']);
  assert.equal(d.memory.there.size, 0);
  assert.equal(d.cache.svids.size, 0, 'nobody wants its SVID any more');
  await d.stop();
  assert.equal(d.memory.done.at(-1), 'closed');
});

test('an entry that moves is put there and removed here; one that becomes a process’s is removed, and its key not given on', async () => {
  const d = await delivering();
  d.server.put(stored('a', 'one'));
  d.begin();
  await d.start();
  await d.calm();
  d.server.put(stored('a', 'two'));
  await d.calm();
  assert.deepEqual([...d.memory.there.keys()], ['two']);
  const { pkcs8 } = d.memory.there.get('two')!;
  d.server.put({ id: 'a', storeSvid: false, selectors: [parseSelector('memory:at:two')] });
  await d.calm();
  assert.equal(d.memory.there.size, 0);
  assert.notDeepEqual(d.cache.svids.get('a')?.pkcs8, pkcs8);
  d.server.put(stored('a', 'two'));
  await d.calm();
  assert.deepEqual([...d.memory.there.keys()], ['two']);
  await d.stop();
});

test('what fails is tried again, later and later, told meanwhile, and never with its key', async () => {
  const d = await delivering();
  d.memory.fails = new Fault('store/unavailable', 'the store is away', { detail: 'ECONNREFUSED' });
  d.server.put(stored('a', 'one'));
  d.begin();
  await d.start();
  await d.calm();
  assert.equal(d.memory.done.length, 1);
  assert.throws(() => d.delivery.check(), fault('store/unavailable', /^the store is away$/));
  await d.calm(1_000);
  assert.equal(d.memory.done.length, 2);
  await d.calm(1_900);
  assert.equal(d.memory.done.length, 2);
  await d.calm(100);
  assert.equal(d.memory.done.length, 3);
  d.memory.fails = undefined;
  await d.calm(4_000);
  assert.equal(d.memory.done.length, 4);
  d.delivery.check();
  await d.calm(600_000);
  assert.equal(d.memory.done.length, 4);
  const key = d.memory.there.get('one')!.pkcs8;
  for (const line of d.lines)
    for (const form of ['base64', 'hex'] as const) assert.ok(!line.includes(key.toString(form).slice(-40)), line);
  assert.ok(d.lines.some((line) => line.includes('ECONNREFUSED')));
  await d.stop();
});

test('a store that never answers is given up after a while, and others do not wait for it for ever', async () => {
  const d = await delivering();
  d.memory.hangs = true;
  d.server.put(stored('a', 'one'));
  d.begin();
  await d.start();
  await d.calm();
  d.memory.hangs = false;
  d.server.put(stored('b', 'two'));
  await d.calm(30_000);
  assert.deepEqual([...d.memory.there.keys()], ['two']);
  assert.throws(() => d.delivery.check(), fault('store/unavailable', /did not answer within 30 s/));
  await d.calm(2_000);
  assert.deepEqual([...d.memory.there.keys()].sort(), ['one', 'two']);
  await d.stop();
});

test('an entry that went while the agent was away is removed by the next one, and what is as it was is not put again', async () => {
  const d = await delivering();
  d.server.put(stored('a', 'one'));
  d.server.put(stored('b', 'two'));
  d.begin();
  await d.start();
  await d.calm();
  const kept = [...d.cache.svids.values()];
  const world = { entries: new Map(d.cache.entries), bundles: d.cache.bundles, position: 1n, logId: 'before' };
  await d.stop();

  d.memory.done.length = 0;
  const again = await delivering({
    ledger: d.ledger,
    memory: d.memory,
    world,
    svids: kept,
    before(server) {
      Object.assign(server, { authority: d.server.authority });
      server.bundles.set(domain, d.server.bundles.get(domain)!);
    },
  });
  again.begin();
  await again.calm();
  assert.equal(again.memory.done.length, 0, 'the SVIDs came back from the disk');
  again.server.put(stored('a', 'one'));
  await again.start();
  await again.calm();
  assert.deepEqual(
    again.memory.done.filter((what) => what.includes('two')),
    ['remove two'],
  );
  await again.stop();
});

test('that no entries are known says nothing: neither before the first synchronisation nor after an eviction', async () => {
  const d = await delivering();
  d.server.put(stored('a', 'one'));
  d.begin();
  await d.start();
  await d.calm();
  d.cache.clear();
  await d.calm(60_000);
  assert.deepEqual([...d.memory.there.keys()], ['one']);
  await d.stop();
  const fresh = await delivering({ ledger: d.ledger, memory: d.memory });
  fresh.begin();
  await fresh.calm(60_000);
  assert.deepEqual([...d.memory.there.keys()], ['one']);
  await fresh.stop();
});

test('what cannot be stored is said by entry: no such store, no such setting, a place that is taken', async () => {
  const d = await delivering();
  d.server.put({ id: 'a', storeSvid: true, selectors: [parseSelector('elsewhere:at:one')] });
  d.begin();
  await d.start();
  await d.calm();
  assert.throws(() => d.delivery.check(), fault('input/invalid', /the store "elsewhere" is not configured/));
  d.server.put({ id: 'a', storeSvid: true, selectors: [parseSelector('memory:in:one')] });
  await d.calm();
  assert.throws(() => d.delivery.check(), fault('input/invalid', /"memory:in:one"/));
  d.server.put({ ...stored('a', 'one'), createdAt: 1 });
  d.server.put({ ...stored('b', 'one'), createdAt: 2 });
  await d.calm();
  assert.throws(() => d.delivery.check(), fault('state/refused', /entry "a" of .* is stored in the same place/));
  assert.equal(d.memory.there.get('one')!.id, d.cache.entries.get('a')!.spiffeId);
  // The place becomes free: nothing is removed from it, the other is put there.
  d.memory.done.length = 0;
  d.server.remove('a');
  await d.calm();
  assert.deepEqual(d.memory.done, ['put one']);
  d.delivery.check();
  await d.stop();
});

test('an SVID that the server refuses is told as such', async () => {
  const d = await delivering();
  d.server.put(stored('a', 'one'));
  d.server.instead.set('BatchNewX509SVID', () => {
    throw new Fault('limit/exceeded', 'too many signatures');
  });
  d.begin();
  await d.start();
  await d.calm(100);
  assert.throws(() => d.delivery.check(), fault('limit/exceeded', /too many signatures/));
  await d.stop();
});

test('an entry whose place was never its own leaves without a word about it', async () => {
  const d = await delivering();
  d.memory.fails = new Fault('store/foreign', 'somebody else is there');
  d.server.put(stored('a', 'one'));
  d.begin();
  await d.start();
  await d.calm();
  assert.throws(() => d.delivery.check(), fault('store/foreign'));
  d.server.remove('a');
  await d.calm();
  assert.deepEqual(d.memory.done, ['put one', 'remove one']);
  d.delivery.check();
  assert.equal(d.delivery.stored, 0);
  await d.stop();
});
