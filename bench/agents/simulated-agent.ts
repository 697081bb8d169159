/**
 * An agent without sockets, disk and workloads: the real agent's attestation, connection, synchronisation and renewal, so
 * that what it costs a server is what an agent costs, and how it comes back is how agents come back.
 */
import { makeCache } from '../../agent/cache.ts';
import { connectServer } from '../../agent/connect-server.ts';
import { makeHoldings } from '../../agent/holdings.ts';
import { serverLink } from '../../agent/link.ts';
import { makeNode } from '../../agent/node.ts';
import { makeRenewal } from '../../agent/renew.ts';
import type { NodeRecord } from '../../agent/state.ts';
import { makeSync, type SyncStatus } from '../../agent/sync.ts';
import type { HostPort } from '../../src/config/kinds.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import { tasks } from '../../src/run/tasks.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { type Applied, applied } from './applied.ts';

export interface SimulatedAgent {
  readonly id: SpiffeId;
  /** To go on as the same agent in another run. */
  readonly node: NodeRecord;
  /** Every group that was applied, in order. */
  readonly applied: readonly Applied[];
  /** How often it attested; one that came with an identity should never. */
  readonly attestations: number;
  readonly entries: number;
  /** Entries for which there is an SVID that has not expired. */
  readonly svids: number;
  status(): SyncStatus & { readonly position: number };
  /** Resolves when everything the server knew at the call is applied, or after `ms`. */
  catchUp(ms: number): Promise<void>;
  /** Resolves when it has synchronised once; rejects when it cannot go on. */
  readonly ready: Promise<void>;
  /** Resolves after close; rejects with what ended the agent, such as a ban. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
}

export interface SimulatedAgentOptions {
  readonly server: HostPort;
  /** The trust domain's bundle, by which the server is known. */
  readonly bundle: Bundle;
  /** An identity from another run, or a join token to get one with. */
  readonly from: { readonly node: NodeRecord } | { readonly joinToken: string };
  /** Whether an SVID is fetched for each entry, and renewed. */
  readonly fetchSvids: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Starts an agent; it has its identity when this resolves. Throws what attestation was refused with. */
export async function simulateAgent(options: SimulatedAgentOptions): Promise<SimulatedAgent> {
  const { server, bundle, from, clock, random, log } = options;
  const { trustDomain } = bundle;
  const kept = 'node' in from ? from.node : undefined;
  const record: Applied[] = [];
  let attestations = 0;

  const plain = makeCache({ trustDomain, bundle, capacity: options.fetchSvids ? 1_000_000 : 0, clock });
  const cache: typeof plain = Object.create(plain, {
    apply: {
      value(change: Parameters<typeof plain.apply>[0]) {
        record.push(applied(change, clock.now()));
        plain.apply(change);
      },
    },
  });
  const roots = () => cache.ownBundle.value.x509Authorities.map(({ certificate }) => certificate);
  const link = serverLink(clock, (node) =>
    connectServer({ server, trustDomain, tls: { requirePostQuantum: false } }, clock, roots, node),
  );
  const holdings = makeHoldings({ cache, chain: () => node.current()?.chain ?? [], usesKey: () => false });
  const sync = makeSync({
    clock,
    random,
    log,
    link,
    cache,
    holdings,
    interval: 5_000,
    onReturn: () => renewal.retry(),
  });
  const renewal = makeRenewal({ clock, random, log, link, cache, keyType: 'ec-p256', availabilityTarget: undefined });
  const method =
    'joinToken' in from
      ? {
          name: 'join_token',
          async begin() {
            attestations += 1;
            return {
              data: { type: 'join_token', payload: Buffer.from(from.joinToken) },
              answer: () => Buffer.alloc(0),
            };
          },
        }
      : undefined;
  const node = makeNode(
    {
      clock,
      random,
      log,
      link,
      keyType: 'ec-p256',
      trustDomain,
      method,
      availabilityTarget: undefined,
      ownBundle: cache.ownBundle,
      save: async (_, fresh) => fresh && cache.putBundle(fresh),
      forget: async () => cache.clear(),
    },
    kept,
  );
  const running = tasks();
  try {
    await node.start(running.signal, kept !== undefined);
  } catch (error) {
    link.close();
    throw error;
  }
  running.run('node', (signal) => node.run(signal));
  running.run('sync', (signal) => sync.run(signal));
  if (options.fetchSvids) running.run('renew', (signal) => renewal.run(signal));
  const ready = Promise.race([sync.first, running.ended]);
  ready.catch(() => {});

  return {
    get id() {
      return node.current()!.id;
    },
    get node() {
      return node.current()!;
    },
    applied: record,
    get attestations() {
      return attestations;
    },
    get entries() {
      return cache.entries.size;
    },
    get svids() {
      let count = 0;
      for (const entry of cache.entries.values()) if (cache.svidFor(entry) !== undefined) count += 1;
      return count;
    },
    status: () => ({ ...sync.status(), position: Number(cache.position.position) }),
    catchUp: sync.catchUp,
    ready,
    ended: running.ended,
    async close() {
      link.close();
      await running.close();
    },
  };
}
