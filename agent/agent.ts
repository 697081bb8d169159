/**
 * The agent's start, in order: state, trust, the node's own identity, the world, SVIDs, sockets. Each part is complete
 * before the next is given it. What fails for good afterwards closes everything and rejects `closed`.
 */
import type { HostPort } from '../src/config/kinds.ts';
import { type Fault, Status } from '../src/errors.ts';
import { loadPackage } from '../src/keys/load-package.ts';
import { openSealer } from '../src/keys/open.ts';
import type { Log, RootLog } from '../src/log.ts';
import { callMetrics } from '../src/observe/calls.ts';
import { observe } from '../src/observe/http.ts';
import { prometheusMetrics } from '../src/observe/metrics.ts';
import { type Call, serveUnix } from '../src/rpc/serve.ts';
import { holdProcess } from '../src/rpc/unix-peer.ts';
import type { Clock } from '../src/run/clock.ts';
import { watchClock } from '../src/run/clock-set.ts';
import { clearEnded, writeEnded } from '../src/run/ended.ts';
import { live } from '../src/run/live.ts';
import type { Random } from '../src/run/random.ts';
import { tasks } from '../src/run/tasks.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { version } from '../src/version.ts';
import { callerLimits } from './api/caller-limits.ts';
import { debugApi } from './api/debug.ts';
import { delegatedApi } from './api/delegated.ts';
import { explainApi } from './api/explain.ts';
import { healthApi } from './api/health.ts';
import { loggerApi } from './api/logger.ts';
import { sayOnce } from './api/say-once.ts';
import { sdsApi } from './api/sds.ts';
import { statusApi } from './api/status.ts';
import { requireHeader, workloadApi } from './api/workload.ts';
import { chooseMethod } from './attest/methods.ts';
import { bootstrapTrust, type Trust } from './bootstrap.ts';
import { serveBroker } from './broker/serve.ts';
import { makeCache } from './cache.ts';
import type { AgentOptions } from './config.ts';
import { connectServer, once } from './connect-server.ts';
import { fetchHttps } from './fetch-https.ts';
import { makeHoldings } from './holdings.ts';
import { makeJwtCache } from './jwt-cache.ts';
import { serverLink } from './link.ts';
import { makeNode } from './node.ts';
import { persist } from './persist.ts';
import { refusalLog } from './refusal-log.ts';
import { refusalOf, refusals } from './refusals.ts';
import { makeRenewal } from './renew.ts';
import { completeFor } from './revocations.ts';
import { prepareSockets } from './sockets.ts';
import { openState } from './state.ts';
import { type AgentStatus, agentStatus } from './status.ts';
import { makeDelivery } from './stores/deliver.ts';
import { openLedger } from './stores/ledger.ts';
import { openStores } from './stores/methods.ts';
import { makeSync } from './sync.ts';
import { why } from './why.ts';
import { makeWitCache } from './wit-cache.ts';
import { type WorkloadAttestor, workloadAttestor } from './workload/attest.ts';
import { workloadMethods } from './workload/methods.ts';
import { nodePods } from './workload/node-pods.ts';
import { watchedPods } from './workload/watched-pods.ts';

export interface AgentPorts {
  readonly clock: Clock;
  readonly random: Random;
  /** A root log can have its level changed over the admin socket. */
  readonly log: Log | RootLog;
}

export interface Agent {
  /** Paths. */
  readonly socket: string;
  readonly adminSocket: string;
  readonly id: SpiffeId;
  /** Where checks and metrics are answered, when configured. */
  readonly health: HostPort | undefined;
  readonly metrics: HostPort | undefined;
  status(): AgentStatus;
  /** Resolves after close(); rejects with what ended the agent, such as its eviction. */
  readonly closed: Promise<void>;
  /**
   * Makes ready for options of which those marked `live` may differ; the returned function puts it in force.
   * Throws what they make impossible.
   */
  prepare(next: AgentOptions): Promise<() => void>;
  close(): Promise<void>;
}

/** Milliseconds that calls on the sockets have to end at close. */
const grace = 2_000;

/** How long those who wait at a start have this process for themselves, milliseconds: to connect and to be answered takes 5. */
const callersFirst = 20;

/**
 * Starts an agent. Resolves when its sockets serve: after the first synchronisation, or at once with what was kept on disk.
 * Throws the first thing that makes a start impossible, as a Fault; nothing is left running then.
 */
export async function startAgent(options: AgentOptions, ports: AgentPorts): Promise<Agent> {
  const { clock, random, log } = ports;
  const { trustDomain } = options;
  const undo: (() => Promise<void> | void)[] = [];
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      for (let last = undo.pop(); last; last = undo.pop()) await last();
    })();
    return closing;
  };
  let prepared = false;
  const noteEnd = (error: unknown): Promise<void> =>
    writeEnded(options.adminSocket, error, clock.now()).catch((failure: unknown) =>
      log.warn(why(failure), 'note on the end of the agent not written'),
    );
  try {
    prepareSockets(options.socket, options.adminSocket);
    prepared = true;
    const sealer = await openSealer(options.keys, ports);
    const state = await openState(options.dataDir, trustDomain, options.keys.store === 'disk', sealer);
    for (const path of state.dropped) log.warn({ path }, 'cache file left aside: it cannot be read');

    const fetchBundle = (roots: readonly Buffer[] | undefined): Promise<Bundle> =>
      once(
        connectServer(options, clock, () => roots),
        (api) => api.bundle(trustDomain),
      );
    const trust: Trust = state.bundle
      ? { kind: 'bundle', bundle: state.bundle }
      : await bootstrapTrust(options, trustDomain, { fetchHttps, fetchBundle });
    const cache = makeCache({
      trustDomain,
      bundle: trust.kind === 'bundle' ? trust.bundle : nothingTrusted(trustDomain),
      capacity: options.x509SvidCacheSize,
      clock,
      world: state.world,
      svids: state.svids,
    });
    const roots = (): readonly Buffer[] | undefined => {
      const { x509Authorities } = cache.ownBundle.value;
      return trust.kind === 'insecure' && x509Authorities.length === 0
        ? undefined
        : x509Authorities.map(({ certificate }) => certificate);
    };

    const link = serverLink(clock, (record) =>
      connectServer(options, clock, roots, record, (path) => cache.revocations.value.check(path)),
    );
    undo.push(() => link.close());
    const running = tasks();
    undo.push(() => running.close());
    const sync = makeSync({
      clock,
      random,
      log,
      link,
      cache,
      holdings: makeHoldings({
        cache,
        chain: () => node.current()?.chain ?? [],
        usesKey: (keyId) => jwts.usesKey(keyId) || wits?.usesKey(keyId) === true,
      }),
      onHeld: (told) => wits?.onUse(told) ?? (() => {}),
      interval: options.syncInterval,
      onReturn: () => {
        renewal.retry();
        wits?.retry();
      },
    });
    const jwts = makeJwtCache({ clock, random, link, cache, capacity: options.jwtSvidCacheSize });
    const { workloadKeyType: keyType, availabilityTarget } = options;
    const renewal = makeRenewal({ clock, random, log, link, cache, keyType, availabilityTarget });
    const wits = options.witSvids.enabled
      ? makeWitCache({ clock, random, log, link, cache, keyType: options.witSvids.keyType, availabilityTarget })
      : undefined;
    const stores = await openStores(options, { trustDomain, random, load: loadPackage });
    const ledger = await openLedger(options.dataDir, trustDomain, (path) =>
      log.warn({ path }, 'ledger of stored SVIDs left aside: it cannot be read'),
    );
    const delivery = makeDelivery({ clock, random, log, cache, stores, ledger });
    const method = chooseMethod(options, random);
    const node = makeNode(
      {
        clock,
        random,
        log,
        link,
        keyType: options.agentKeyType,
        trustDomain,
        method,
        availabilityTarget,
        ownBundle: cache.ownBundle,
        async save(record, bundle) {
          if (bundle !== undefined) cache.putBundle(bundle);
          await state.saveNode(record, cache.ownBundle.value);
        },
        async forget() {
          cache.clear();
          jwts.clear();
          wits?.clear();
          await state.forget(cache.ownBundle.value);
        },
      },
      state.node,
    );

    // With something to serve, the server may be away: what was kept is served while the agent looks for it.
    const isKept = state.svids.some(({ notAfter }) => notAfter > clock.now()) && cache.entries.size > 0;
    await node.start(running.signal, isKept);
    const follow = (): void => {
      running.run('node', (signal) => node.run(signal));
      running.run('sync', (signal) => sync.run(signal));
      running.run('renew', (signal) => renewal.run(signal));
      running.run('stores', (signal) => delivery.run(signal));
      running.run('jwt', (signal) => jwts.run(signal));
      if (wits) running.run('wit', (signal) => wits.run(signal));
      running.run('clock', (signal) =>
        watchClock(clock, signal, (ms) => {
          log.warn(
            { seconds: Math.round(ms / 1000) },
            'the clock was set, or the machine slept; what is due is looked at anew',
          );
          for (const one of [node, renewal, jwts, wits]) one?.clockSet();
        }),
      );
      running.run('persist', (signal) => persist(cache, state, { clock, log }, signal));
      void sync.first.then(async () => {
        node.proven();
        await link
          .call((api) => api.postStatus(version))
          .catch((error: unknown) => log.warn(why(error), 'version not reported'));
      });
    };
    if (!isKept) follow();
    if (!isKept) await Promise.race([sync.first, running.ended]);

    const status = (): AgentStatus =>
      agentStatus({ node: node.state.value, cache, jwts, sync: sync.status(), outage: renewal.outage });
    const refused = refusals();
    const logRefusal = refusalLog(log, clock);
    const serving = live(true);
    const collected = options.metrics.listen ? await prometheusMetrics('agent', version) : undefined;
    collected?.measured('entries', 'Registration entries this node is authorized for.', () => cache.entries.size);
    collected?.measured('x509_svids', 'X509-SVIDs kept ready.', () => cache.svids.size);
    collected?.measured('jwt_svids', 'JWT-SVIDs kept.', () => jwts.size);
    if (wits) collected?.measured('wit_svids', 'WIT-SVIDs kept.', () => wits.size);
    collected?.measured('stored_svids', 'X509-SVIDs that lie in stores.', () => delivery.stored);
    const count = collected && callMetrics(collected);
    const onDone = (call: Call, fault: Fault | undefined, ms: number): void => {
      count?.(call.method, fault?.status ?? Status.OK, ms);
      if (fault === undefined || fault.code === 'call/cancelled') return;
      logRefusal(call, fault);
      refused.note(refusalOf(call, fault, clock.now()));
    };
    const say = sayOnce(log, clock);
    const podsFailed = (error: unknown): void => say('', 'pods', why(error), 'pods not listed');
    const attesting = (from: AgentOptions) => {
      const methods = workloadMethods(from, clock);
      const { k8s } = from.workloadAttestors;
      return {
        methods,
        attestor: workloadAttestor(methods, { clock, log }),
        pods: k8s && watchedPods(nodePods(k8s, clock), clock, k8s.reloadInterval, podsFailed),
      };
    };
    let attestation = attesting(options);
    const callers = {
      attestor: { attest: (peer) => attestation.attestor.attest(peer) } satisfies WorkloadAttestor,
      cache,
      catchUp: sync.catchUp,
      agentId: () => node.current()?.id,
      ready: () => isKept || sync.status().lastSuccess > 0,
    };
    const crls = (domain: TrustDomain): readonly Buffer[] =>
      domain === trustDomain ? completeFor(cache.revocations.value, cache.ownBundle.value) : [];
    const limits = callerLimits(options.limits, clock);
    const workloads = await serveUnix({
      path: options.socket,
      mode: 0o777,
      clock,
      admit: limits.admit,
      onDone: (call, fault, ms) => {
        limits.end(call);
        onDone(call, fault, ms);
      },
      onRefused: (fault) => say('', fault.message, why(fault), 'connection refused'),
      reflection: true,
      guard: (call) => {
        limits.begin(call);
        requireHeader(call);
      },
      services: [
        workloadApi({
          ...callers,
          clock,
          jwts,
          wits,
          get allowUnauthenticatedVerifiers() {
            return options.allowUnauthenticatedVerifiers;
          },
          get allowedForeignJwtClaims() {
            return options.allowedForeignJwtClaims;
          },
        }),
        ...(options.sds.enabled ? [sdsApi({ ...callers, clock, log, options: options.sds, crls })] : []),
        healthApi(serving),
      ],
    });
    undo.push(() => workloads.close(grace));
    const admin = await serveUnix({
      path: options.adminSocket,
      mode: 0o600,
      clock,
      onDone,
      services: [
        debugApi({
          clock,
          cache,
          jwts,
          chain: () => node.current()?.chain ?? [],
          lastSync: () => sync.status().lastSuccess,
          stored: () => delivery.stored,
        }),
        loggerApi('setLevel' in log ? log : undefined),
        delegatedApi({
          ...{ ...callers, clock, jwts, holdProcess },
          isDelegate: (id) => options.authorizedDelegates.includes(id),
        }),
        statusApi(status, refused.latest),
        explainApi({
          clock,
          methods: () => attestation.methods,
          cache,
          socket: options.socket,
          agentId: () => node.current()?.id,
          sync: sync.status,
          catchUp: sync.catchUp,
          refusals: refused.latest,
        }),
      ],
    });
    undo.push(() => admin.close(grace));
    const broker =
      options.broker &&
      (await serveBroker(options.broker, {
        ...callers,
        clock,
        jwts,
        holdProcess,
        requirePostQuantum: options.tls.requirePostQuantum,
        current: node.current,
        node: node.state,
        pods: () => attestation.pods,
        onDone,
        onRefused: (fault, from) => say(from, fault.message, why(fault), 'connection of a broker refused'),
      }));
    undo.push(() => broker?.close(grace));
    const observing = await observe(options, {
      clock,
      live: {},
      ready: { server: () => throwIf(sync.status().outage) },
      // Processes are served all the same.
      told: { stores: () => delivery.check() },
      collected,
    });
    undo.push(() => observing.close());
    undo.push(() => serving.set(false));
    if (broker !== undefined) log.info({ broker: broker.addresses }, 'brokers are served');
    log.info({ socket: options.socket, admin_socket: options.adminSocket, id: node.current()?.id }, 'agent serves');
    // Who waits for what was kept has it before the server is dialled.
    if (isKept) undo.push(clock.after(callersFirst, follow));

    await clearEnded(options.adminSocket);
    const closed = running.ended.catch(async (error: unknown) => {
      await close();
      await noteEnd(error);
      throw error;
    });
    closed.catch(() => {});
    return {
      socket: options.socket,
      adminSocket: options.adminSocket,
      get id() {
        return (node.current() ?? state.node)!.id;
      },
      health: observing.health,
      metrics: observing.metrics,
      status,
      closed,
      async prepare(next) {
        const made = attesting(next);
        return () => {
          attestation = made;
        };
      },
      close,
    };
  } catch (error) {
    await close();
    if (prepared) await noteEnd(error);
    throw error;
  }
}

/** Before an insecure bootstrap has brought the real one. */
const nothingTrusted = (trustDomain: TrustDomain): Bundle => ({
  trustDomain,
  x509Authorities: [],
  jwtAuthorities: [],
  witAuthorities: [],
  refreshHint: 0,
  sequence: 0n,
});

function throwIf(fault: Fault | undefined): void {
  if (fault !== undefined) throw fault;
}
