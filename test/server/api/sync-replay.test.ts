/**
 * The push, as agents live it: whatever happens to entries, nodes and bundles, in whatever order, replaying what a
 * stream sends gives exactly what the node may hold, also over breaks of the stream and holes in the log.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import type { Context } from '../../../server/api/context.ts';
import { syncService } from '../../../server/api/sync.ts';
import { authorizedEntries, federatedDomains } from '../../../server/entries/authorized.ts';
import { watchers } from '../../../server/entries/watchers.ts';
import { followWorld } from '../../../server/entries/world.ts';
import { holdings } from '../../../server/rotation/holdings.ts';
import { openStore } from '../../../server/store/open.ts';
import type { StoredNode } from '../../../server/store/store.ts';
import { asFault } from '../../../src/errors.ts';
import { silentLog } from '../../../src/log.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { entryToWire } from '../../../src/wire/entry.ts';
import { bundle, draft, node } from '../../suites/store.ts';
import { drivenClock, settle } from '../../support/clock.ts';

const own = parseTrustDomain('example.org');
const at = (path: string): SpiffeId => parseId(`spiffe://${own}${path}`);
const facts = ['x:1', 'x:2', 'x:3'].map(parseSelector);
const agents = ['/spire/agent/one', '/spire/agent/two'];
const foreign = ['b.org', 'c.org'];
const places = ['/a', '/b', '/c', '/d', '/alias-1', '/alias-2'].map(at);
const parents = [...places, ...agents.map(at), at('/spire/server'), at('/spire/server')];
const ids = Array.from({ length: 10 }, (_, index) => `e${index}`);

const shape = {
  id: fc.constantFrom(...ids),
  spiffeId: fc.constantFrom(...places),
  parentId: fc.constantFrom(...parents),
  selectors: fc.uniqueArray(fc.constantFrom(...facts), { minLength: 1, maxLength: 2 }),
  federatesWith: fc.subarray(foreign),
};
const op = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('create'),
      entries: fc.array(fc.record(shape), { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('update'),
      entries: fc.array(fc.record(shape), { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('delete'), ids: fc.subarray(ids, { minLength: 1, maxLength: 4 }) }),
  },
  fc.record({ do: fc.constant('bundle'), domain: fc.constantFrom(...foreign), sequence: fc.bigInt(1n, 9n) }),
  fc.record({ do: fc.constant('no bundle'), domain: fc.constantFrom(...foreign) }),
  fc.record({ do: fc.constant('attest'), agent: fc.constantFrom(...agents), selectors: fc.subarray(facts) }),
  fc.record({ do: fc.constant('break'), agent: fc.constantFrom(...agents) }),
  fc.record({ do: fc.constant('prune') }),
  // Several of the above with nobody looking in between: followers see them as one batch.
);
// biome-ignore lint/suspicious/noExplicitAny: messages and steps of every kind.
type Message = any;
type Op = { do: string } & Record<string, Message>;
const story = fc.array(fc.record({ ops: fc.array(op, { minLength: 1, maxLength: 4 }) }), {
  minLength: 1,
  maxLength: 10,
});

const store = await openStore({ url: 'sqlite::memory:' });
const clock = drivenClock();
const world = await followWorld(store, (error) => assert.fail(String(error)));
const watching = watchers(world, own);
const rights = new WeakMap<object, StoredNode>();
after(async () => {
  world.close();
  await store.close();
});
world.onChange((change, old) => watching.tell(change, old));
const rightsOf = (call: object) => ({ as: 'agent', id: rights.get(call)?.id, node: rights.get(call) });
const context = {
  trustDomain: own,
  store,
  world,
  clock,
  holdings: holdings(clock),
  log: silentLog,
  rightsOf,
  recheck: async (call: object) => rightsOf(call),
} as unknown as Context;
const service = syncService(context, watching, 'log-1');
const watch = service.methods.Watch as (
  requests: AsyncIterable<object>,
  call: object,
  send: (message: Message) => Promise<void>,
) => Promise<void>;

/** What an agent keeps, and its stream when it has one. */
function agent(path: string) {
  let held = new Map<string, object>();
  let bundles = new Map<string, object>();
  let position = 0;
  let logId = '';
  let stop: (() => void) | undefined;
  let group: Message[] = [];
  let first = Promise.withResolvers<void>();

  async function send(message: Message): Promise<void> {
    assert.ok(message.position >= position, 'positions never go back');
    group.push(message);
    if (!message.complete) return;
    const { snapshot } = message;
    if (snapshot) {
      held = new Map();
      bundles = new Map();
    }
    for (const part of group) {
      assert.equal(part.snapshot, snapshot);
      for (const id of part.removed_entry_ids ?? []) held.delete(id);
      for (const entry of part.entries ?? []) held.set(entry.id, entry);
      for (const name of part.removed_trust_domains ?? []) bundles.delete(name);
      for (const one of part.bundles ?? []) bundles.set(one.trust_domain, one);
    }
    group = [];
    position = Number(message.position);
    logId = message.log_id;
    first.resolve();
  }
  return {
    path,
    get connected() {
      return stop !== undefined;
    },
    /** Resolves when the first group is there. */
    connect(): Promise<void> {
      first = Promise.withResolvers<void>();
      const now = world.nodes.get(at(path)) as StoredNode;
      const gone = new AbortController();
      const call = {
        caller: { kind: 'tls', svid: { leaf: { notAfter: clock.now() + 3_600_000, serial: BigInt(now.serial || 0) } } },
        signal: gone.signal,
      };
      rights.set(call, now);
      group = [];
      async function* requests() {
        yield { start: { position: String(position), log_id: logId } };
        await new Promise<void>((resolve) => gone.signal.addEventListener('abort', () => resolve(), { once: true }));
      }
      const ended = watch(requests(), call, send).then(
        () => {
          if (stop === end) stop = undefined;
        },
        (error: unknown) => {
          throw asFault(error);
        },
      );
      ended.catch((error) => assert.fail(error));
      const end = (): void => gone.abort();
      stop = end;
      return Promise.race([first.promise, ended]);
    },
    disconnect(): void {
      stop?.();
      stop = undefined;
    },
    check(): void {
      const now = world.nodes.get(at(path)) as StoredNode;
      const allowed = authorizedEntries(world, now);
      const sorted = (entries: Iterable<Message>) => [...entries].sort((a, b) => (a.id < b.id ? -1 : 1));
      assert.deepEqual(sorted(held.values()), sorted(allowed.map((entry) => entryToWire(entry))), `what ${path} holds`);
      for (const domain of [own, ...federatedDomains(allowed)]) {
        const stored = world.bundles.get(domain);
        assert.equal(
          (bundles.get(domain) as Message)?.sequence_number,
          stored?.sequence.toString(),
          `bundle of ${domain}`,
        );
      }
    },
  };
}

async function perform({ do: what, ...given }: Op, nodes: ReturnType<typeof agent>[]): Promise<void> {
  switch (what) {
    case 'create':
      await store.entries.create(
        given.entries.map((entry: object) => ({ draft: draft('/any', entry), stamp: { id: 'never', now: 1 } })),
      );
      break;
    case 'update':
      await store.entries.update(given.entries.map(({ id, ...patch }: { id: string }) => ({ id, patch })));
      break;
    case 'delete':
      await store.entries.delete(given.ids);
      break;
    case 'bundle':
      await store.bundles.put(bundle(given.domain, { sequence: given.sequence }), 'any');
      break;
    case 'no bundle':
      await store.bundles.delete(given.domain as TrustDomain, 'dissociate');
      break;
    case 'attest':
      await store.nodes.attest(node(given.agent, { selectors: given.selectors }));
      break;
    case 'break':
      nodes.find(({ path }) => path === given.agent)?.disconnect();
      break;
    case 'prune':
      await store.log.prune(await store.log.position());
  }
}

async function fresh(): Promise<void> {
  await store.entries.delete(ids);
  for (const name of foreign) await store.bundles.put(bundle(name), 'any');
  await store.bundles.put(bundle(own, { sequence: 7n }) as Bundle, 'any');
  for (const path of agents) await store.nodes.attest(node(path, { selectors: facts.slice(0, 1) }));
  await world.reach();
}

test('replaying a stream gives exactly what the node may hold, after each change, over breaks and pruned logs', async () => {
  await fc.assert(
    fc.asyncProperty(story, async (steps) => {
      await fresh();
      const nodes = agents.map(agent);
      try {
        await Promise.all(nodes.map((one) => one.connect()));
        for (const { ops } of steps) {
          // Not awaited one by one: the log's followers see what is committed together as one batch.
          await Promise.all(ops.map((one) => perform(one as Op, nodes)));
          await world.reach();
          await settle();
          for (const one of nodes) if (!one.connected) await one.connect();
          await settle();
          for (const one of nodes) one.check();
        }
      } finally {
        for (const one of nodes) one.disconnect();
        await settle();
      }
    }),
    { numRuns: 150 },
  );
  assert.equal(watching.size, 0, 'ended streams are forgotten');
});

test('changes made while a resume is being worked out are not lost', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(op, { minLength: 1, maxLength: 6 }),
      fc.array(op, { minLength: 1, maxLength: 6 }),
      async (missed, meanwhile) => {
        await fresh();
        const nodes = agents.map(agent);
        try {
          await Promise.all(nodes.map((one) => one.connect()));
          for (const one of nodes) one.disconnect();
          await settle();
          for (const one of missed) await perform(one as Op, []);
          await world.reach();
          const connected = nodes.map((one) => one.connect());
          await Promise.all(meanwhile.map((one) => perform(one as Op, [])));
          await Promise.all(connected);
          await world.reach();
          await settle();
          for (const one of nodes) if (!one.connected) await one.connect();
          await settle();
          for (const one of nodes) one.check();
        } finally {
          for (const one of nodes) one.disconnect();
          await settle();
        }
      },
    ),
    { numRuns: 150 },
  );
});
