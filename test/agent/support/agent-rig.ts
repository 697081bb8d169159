/**
 * Everything of an agent between its server and its sockets, without either: a fake server, a driven clock, and workloads
 * that are what the test says they are. Calls go through the real services.
 */

import { requireHeader, type WorkloadApiPorts, workloadApi } from '../../../agent/api/workload.ts';
import { makeCache } from '../../../agent/cache.ts';
import { makeHoldings } from '../../../agent/holdings.ts';
import { makeJwtCache } from '../../../agent/jwt-cache.ts';
import { serverLink } from '../../../agent/link.ts';
import { makeRenewal } from '../../../agent/renew.ts';
import type { WorkloadSvid, World } from '../../../agent/state.ts';
import { makeSync } from '../../../agent/sync.ts';
import { makeWitCache } from '../../../agent/wit-cache.ts';
import type { ClassicKeyType, KeyType } from '../../../src/crypto/algorithms.ts';
import { parseCertificate, splitCertificates } from '../../../src/crypto/certificate.ts';
import { silentLog } from '../../../src/log.ts';
import type { Channel } from '../../../src/rpc/connect.ts';
import type { Call } from '../../../src/rpc/serve.ts';
import type { HeldProcess, UnixPeer } from '../../../src/rpc/unix-peer.ts';
import { parseSelector, selectorSet } from '../../../src/spiffe/selector.ts';
import { drivenClock } from '../../support/clock.ts';
import { attestedRecord } from './attested.ts';
import { domain, fakeServer, id } from './fake-server.ts';
import { memoryChannel } from './memory-channel.ts';
import { middling } from './random.ts';

export const header = { 'workload.spiffe.io': 'true' };

export interface RigOptions {
  capacity?: number;
  jwtCapacity?: number;
  keyType?: KeyType;
  /** Offers WIT-SVIDs. */
  wits?: boolean;
  witKeyType?: ClassicKeyType;
  world?: World;
  svids?: readonly WorkloadSvid[];
  units?: readonly number[];
  api?: Partial<WorkloadApiPorts>;
  /** Before anything runs. */
  before?: (server: ReturnType<typeof fakeServer>) => void;
}

export async function agentRig(options: RigOptions = {}) {
  const clock = drivenClock();
  const random = middling(options.units);
  const server = fakeServer(clock);
  // No node runs here to renew the agent's own SVID.
  server.agentTtl = 30 * 86_400_000;
  options.before?.(server);
  const link = serverLink(clock, (node) => server.open(node));
  const cache = makeCache({
    trustDomain: domain,
    bundle: server.bundles.get(domain)!,
    capacity: options.capacity ?? 1000,
    clock,
    world: options.world,
    svids: options.svids ?? [],
  });
  const sync = makeSync({
    holdings: makeHoldings({ cache, chain: () => [], usesKey: () => false }),
    clock,
    random,
    log: silentLog,
    link,
    cache,
    interval: 5_000,
    onReturn: () => {
      renewal.retry();
      wits?.retry();
    },
  });
  const renewal = makeRenewal({
    clock,
    random,
    log: silentLog,
    link,
    cache,
    keyType: options.keyType ?? 'ec-p256',
    availabilityTarget: undefined,
  });
  const jwts = makeJwtCache({ clock, random, link, cache, capacity: options.jwtCapacity ?? 1000 });
  const shared = { clock, random, log: silentLog, link, cache, availabilityTarget: undefined };
  const wits = options.wits ? makeWitCache({ ...shared, keyType: options.witKeyType ?? 'ec-p256' }) : undefined;
  const record = await attestedRecord(server);
  link.renewed(record);

  const controller = new AbortController();
  const { signal } = controller;
  const failures: unknown[] = [];
  const run = (work: Promise<void>): void => {
    work.catch((error: unknown) => {
      if (!signal.aborted) failures.push(error);
    });
  };

  const processes = new WeakMap<HeldProcess, readonly string[]>();
  const service = workloadApi({
    attestor: { attest: (peer) => selectorSet((processes.get(peer) ?? []).map(parseSelector)) },
    cache,
    clock,
    jwts,
    wits,
    catchUp: sync.catchUp,
    agentId: () => record.id,
    ready: () => sync.status().lastSuccess > 0,
    allowUnauthenticatedVerifiers: false,
    allowedForeignJwtClaims: [],
    ...options.api,
  });

  return {
    clock,
    server,
    link,
    cache,
    sync,
    renewal,
    jwts,
    wits,
    record,
    failures,
    /** Starts synchronisation and issuing, and lets them settle. */
    async start(): Promise<void> {
      run(sync.run(signal));
      run(renewal.run(signal));
      if (wits) run(wits.run(signal));
      await clock.advance(0);
      await clock.advance(0);
    },
    stop: () => controller.abort(new Error('stop')),
    /** The socket as a process with these selectors sees it. */
    workload(...selectors: string[]): Channel {
      const peer: UnixPeer = { uid: 1000, gid: 1000, pid: 4242, alive: () => true, close() {} };
      processes.set(peer, selectors.length > 0 ? selectors : ['unix:uid:1000']);
      const caller = { kind: 'unix', peer } as const;
      const guarded = { ...service, methods: { ...service.methods } };
      for (const [name, method] of Object.entries(service.methods)) {
        guarded.methods[name] = (input: unknown, call: Call, send) => {
          requireHeader(call);
          return method(input, call, send);
        };
      }
      return memoryChannel([guarded], caller);
    },
  };
}

export type Rig = Awaited<ReturnType<typeof agentRig>>;

export const api = 'SpiffeWorkloadAPI';

/** A stream whose messages are taken one at a time; `pending` says whether the next one is not there yet. */
export function follow(
  channel: Channel,
  method: string,
  clock: { advance(ms: number): Promise<void> },
  request: object = {},
) {
  const stream = channel.stream(api, method, request, { metadata: header });
  return {
    async next(): Promise<any> {
      const { value, done } = await stream.next();
      return done ? undefined : value;
    },
    /** Whether a message or end comes without time passing. */
    async isSilent(): Promise<boolean> {
      let came = false;
      const next = stream.next().then(
        () => (came = true),
        () => (came = true),
      );
      await clock.advance(0);
      void next;
      return !came;
    },
    close: () => stream.return?.(),
  };
}

export const leafOf = (svid: { x509_svid: Buffer }) => parseCertificate(splitCertificates(svid.x509_svid)[0]!);
export { id };
