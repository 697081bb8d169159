/**
 * The whole start-up of the server, in order: data directory, store, keys, world, authorities, API, listeners. Each part
 * is complete when the next one is given it.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { HostPort } from '../src/config/kinds.ts';
import { Fault, quote, Status } from '../src/errors.ts';
import type { KeyStore } from '../src/keys/key-store.ts';
import type { LoadPackage } from '../src/keys/load-package.ts';
import { openKeys, openSealer } from '../src/keys/open.ts';
import type { RootLog } from '../src/log.ts';
import { callMetrics } from '../src/observe/calls.ts';
import { observe } from '../src/observe/http.ts';
import { prometheusMetrics } from '../src/observe/metrics.ts';
import type { Call } from '../src/rpc/serve.ts';
import { serveTls, serveUnix } from '../src/rpc/serve.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import { watchClock } from '../src/run/clock-set.ts';
import { live } from '../src/run/live.ts';
import type { Random } from '../src/run/random.ts';
import { tasks } from '../src/run/tasks.ts';
import { isMemberOf } from '../src/spiffe/id.ts';
import { revokedCertificate } from '../src/spiffe/revocation.ts';
import { verifyX509Svid } from '../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../src/tls/credentials.ts';
import { version } from '../src/version.ts';
import { accessControl, type Rights, svidExpired } from './api/access.ts';
import { agentService } from './api/agent.ts';
import { bundleService } from './api/bundle.ts';
import type { Context } from './api/context.ts';
import { debugService } from './api/debug.ts';
import { entryService } from './api/entry.ts';
import { healthService } from './api/health.ts';
import { rateLimiter } from './api/limits.ts';
import { localAuthorityService } from './api/local-authority.ts';
import { loggerService } from './api/logger.ts';
import { revocationService } from './api/revocation.ts';
import { rotationService } from './api/rotation.ts';
import { svidService } from './api/svid.ts';
import { syncService } from './api/sync.ts';
import { trustDomainService } from './api/trust-domain.ts';
import { nodeAttestors } from './attest/methods.ts';
import { startAuthorities } from './authorities.ts';
import { openSharedTokenKeys } from './authority/token-keys.ts';
import { type Begun, begin } from './begin.ts';
import type { ServerOptions } from './config.ts';
import { watchers } from './entries/watchers.ts';
import { type FollowedWorld, followWorld } from './entries/world.ts';
import { keepHouse } from './housekeeping.ts';
import type { SigningForTests } from './issue/signing-workers.ts';
import { serveCrls } from './publish/crls.ts';
import { revocationLists } from './revocation/lists.ts';
import { reach } from './revocation/reach.ts';
import { issuanceRecorder } from './revocation/recorder.ts';
import { revoker } from './revocation/revoke.ts';
import { conduct } from './rotation/conduct.ts';
import { holdings } from './rotation/holdings.ts';
import type { Store } from './store/store.ts';
import { awaitUpstream } from './upstream/first-wait.ts';
import { openUpstream } from './upstream/open.ts';
import { steadyUpstream } from './upstream/steady.ts';

export interface ServerPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: RootLog;
  /** Instead of what the options name: for tests. */
  readonly keys?: KeyStore;
  readonly store?: Store;
  /** Where optional packages come from. */
  readonly load?: LoadPackage | undefined;
  /** How long a first start waits for an upstream authority that is away, milliseconds; not at all when absent. */
  readonly upstreamPatience?: number | undefined;
  readonly signing?: SigningForTests | undefined;
}

export interface RunningServer {
  /** The TCP listener, with its real port. */
  readonly address: HostPort;
  readonly adminSocket: string;
  /** Where checks and metrics are answered, when configured. */
  readonly health: HostPort | undefined;
  readonly metrics: HostPort | undefined;
  /** Where revocation lists are served, when configured. */
  readonly crls: HostPort | undefined;
  /** Resolves after close; rejects when the server cannot go on. */
  readonly closed: Promise<void>;
  /**
   * Makes ready for options of which those marked `live` may differ; the returned function puts it in force.
   * Throws what they make impossible.
   */
  prepare(next: ServerOptions): Promise<() => void>;
  close(): Promise<void>;
}

/** Authorities and the server's own SVID are looked after this often. */
const freshEvery = 5_000;
const grace = 5_000;
const readAgainAfter = 1_000;

/**
 * Starts a server, from where it was begun if it was. Throws a Fault that says what is in the way; nothing is left running
 * then.
 */
export async function startServer(options: ServerOptions, ports: ServerPorts, begun?: Begun): Promise<RunningServer> {
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
  try {
    const { serverName, store: opening } = begun ?? (await begin(options, ports));
    undo.push(() =>
      opening.then(
        (store) => store.close(),
        () => {},
      ),
    );
    const owner = { trustDomain, server: serverName, dataDir: options.dataDir };
    const seal = ports.keys ? undefined : await openSealer(options.keys, ports);
    // While the store is being opened.
    const keys = ports.keys ?? (await openKeys(options.keys, owner, { ...ports, seal }));
    if (!ports.keys) undo.push(() => keys.close?.());
    const store = await opening;
    await store.claim(trustDomain);
    const sharedTokenKeys = await openSharedTokenKeys(options, owner, store.journal, { ...ports, seal });
    undo.push(() => sharedTokenKeys?.keys.close?.());

    const running = tasks();
    undo.push(() => running.close());
    const fail = (error: unknown): void => running.run('change log', () => Promise.reject(error));
    const { databaseReplica } = options;
    // Loaded when asked for, with what speaks to PostgreSQL.
    const loaded =
      databaseReplica === undefined
        ? undefined
        : await (await import('./entries/load-from-replica.ts')).loadFromReplica(databaseReplica, store, log);
    const world = await followWorld(
      store,
      (error) => {
        // A database that is away comes back, and what was missed is read then; anything else leaves a memory of no use.
        if (!(error instanceof Fault) || error.code !== 'peer/unavailable') return fail(error);
        log.warn({ code: error.code, message: error.message }, 'changes not read; they are read again');
        running.run('change log', (signal) => readAgain(world, clock, signal));
      },
      loaded,
    );
    undo.push(() => world.close());
    undo.push(
      store.log.onBroken((fault) => {
        log.fatal({ code: fault.code, message: fault.message }, 'the database is not the one it was');
        // Agents must not go on from positions that stand for other changes now. One of the servers is first to see to it.
        const renewed = store.log
          .renew(random.uuid())
          .catch((error: unknown) => log.error({ error }, 'log not renewed'));
        void renewed.then(() => fail(fault));
      }),
    );
    const lists = revocationLists({ store, world, keys, clock, log });
    const { requirePostQuantum } = options.tls;
    const above = await openUpstream(options.upstream, { ...ports, trustDomain, requirePostQuantum });
    const upstream = above && steadyUpstream(above, trustDomain, ports);
    undo.push(() => upstream?.close());
    const authorities = await awaitUpstream(upstream, ports.upstreamPatience ?? 0, ports, () =>
      startAuthorities(options, {
        store,
        keys,
        clock,
        random,
        log,
        serverName,
        beforeX509Published: lists.publish,
        sharedTokenKeys,
        upstream,
      }),
    );
    await world.reach();
    await lists.refresh(authorities.x509.state);
    const signing =
      options.workers === 0
        ? undefined
        : (await import('./issue/signing-workers.ts')).signingWorkers(
            options.workers,
            { trustDomain, requests: options.experimental },
            { clock, random, log, forTests: ports.signing },
          );
    undo.push(() => signing?.close());
    const recorder = issuanceRecorder(store.revocations, { clock, log });
    undo.push(() => recorder.close());
    const revoking = revoker({
      store,
      world,
      recorder,
      clock,
      log,
      longest: options.caTtl,
      recorded: options.revocation.record,
    });

    const checkAccess = accessControl({
      ...{ trustDomain, world, nodes: store.nodes, clock },
      isAdmin: (id) => options.adminIds.includes(id),
    });
    const found = (call: Call, now: Rights): Rights => {
      call.found = now;
      return now;
    };
    const recheck = (call: Call): Rights | Promise<Rights> => {
      const now = checkAccess(call);
      return now instanceof Promise ? now.then((rights) => found(call, rights)) : found(call, now);
    };
    const attestorPorts = { trustDomain, store, clock, random };
    const attestors = live(await nodeAttestors(options, attestorPorts));
    const context: Context = {
      trustDomain,
      options,
      store,
      world,
      authorities,
      recorder,
      withdrawing: (what, act) => (options.revocation.withdrawn ? revoking.withdrawing(what, act) : act()),
      holdings: holdings(clock),
      signing,
      limit: rateLimiter(options.rateLimits, clock, recheck),
      attestors,
      rightsOf: (call) => call.found as Rights,
      recheck,
      clock,
      random,
      log,
    };
    world.onChange((change) => {
      // Another server may have changed what is shared, which is no reason to wait until the next look at it.
      if (!sharedTokenKeys || change.kind !== 'bundle' || change.trustDomain !== trustDomain) return;
      for (const authority of [authorities.jwt, authorities.wit])
        void authority
          ?.catchUp()
          .catch((error: unknown) => log.error({ error }, 'shared authority not looked at; it is tried again'));
    });
    const watching = watchers(world, trustDomain);
    const { journal } = store;
    const reaching = reach({
      journal,
      world,
      watchers: watching,
      polling: context.holdings.polling,
      serverName,
      clock,
    });
    world.onChange((change, old) => watching.tell(change, old));
    world.onChange((change) => {
      revoking.heard(change);
      if (change.kind !== 'revocation') return;
      reaching.expect();
      void lists
        .refresh(authorities.x509.state)
        .catch((error: unknown) => log.error({ error }, 'revocation list not signed; it is tried again'));
    });
    const rotating = conduct({
      ...{ store, world, authorities, trustDomain, clock, random, log },
      holdings: context.holdings,
      refreshHint: options.refreshHint,
      jwtLifetime: () => options.defaultJwtSvidTtl,
    });
    const shared = [
      agentService(context),
      bundleService(context),
      entryService(context),
      svidService(context),
      trustDomainService(context),
      localAuthorityService(context),
      revocationService(context, { revoker: revoking, lists, reach: reaching }),
      rotationService(rotating),
    ];
    const localOnly = [loggerService(log), debugService(context, clock.now()), healthService(context)];
    const agentOnly = [syncService(context, watching, store.log.id)];

    const collected = options.metrics.listen ? await prometheusMetrics('server', version) : undefined;
    collected?.measured('entries', 'Registration entries.', () => world.entries.size);
    collected?.measured('agents', 'Attested agents, banned ones too.', () => world.nodes.size);
    collected?.measured('watching_agents', 'Agents to which changes are pushed.', () => watching.size);
    const count = collected && callMetrics(collected);
    const onDone = (call: Call, fault: Fault | undefined, ms: number): void => {
      count?.(call.method, fault?.status ?? Status.OK, ms);
      logCall(log, call, fault);
    };

    const tlsContext = live(secureContextOptions(authorities.serverSvid.value));
    undo.push(authorities.serverSvid.onChange((svid) => tlsContext.set(secureContextOptions(svid))));
    await mkdir(dirname(options.adminSocket), { recursive: true, mode: 0o700 });
    const admin = await serveUnix({
      path: options.adminSocket,
      mode: options.adminSocketMode,
      services: [...shared, ...localOnly],
      guard: recheck,
      onDone,
      clock,
    });
    undo.push(() => admin.close(grace));
    const tls = await serveTls({
      at: options.listen,
      context: tlsContext,
      requirePostQuantum: options.tls.requirePostQuantum,
      verifyClient: (chain) => {
        const svid = verifyX509Svid(
          chain,
          (domain) => (domain === trustDomain || isAdminDomain(domain) ? world.bundles.get(domain) : undefined),
          clock.now(),
          ([leaf]) => {
            const revoked = world.revocations.get(`serial:${leaf?.serial}`);
            if (revoked) throw revokedCertificate(revoked.value, revoked.revokedAt);
          },
        );
        if (isMemberOf(svid.id, trustDomain) || options.adminIds.includes(svid.id)) return svid;
        throw new Fault('peer/untrusted', `${quote(svid.id)} is neither of this trust domain nor an administrator`);
      },
      // At debug: anybody who can reach the port may cause these.
      onRefused: (fault, from) =>
        log.debug({ address: from, code: fault.code, message: fault.message }, 'connection refused'),
      services: [...shared, ...agentOnly],
      endsWithSvid: svidExpired,
      guard: recheck,
      onDone,
      clock,
    });
    undo.push(() => tls.close(grace));

    const observing = await observe(options, {
      clock,
      live: { 'change log': () => {} },
      ready: {
        store: () => store.ping(),
        keys: () => keys.check?.(),
        authorities: authorities.check,
        clock: authorities.checkClock,
      },
      // What was issued goes on working without it: it is told, and takes no server out of service.
      told: upstream && { upstream: () => upstream.check() },
      collected,
    });
    undo.push(() => observing.close());
    const listing = options.revocation.listen && (await serveCrls(options.revocation.listen, world));
    undo.push(() => listing?.close());

    running.run('authorities', async (signal) => {
      while (!signal.aborted) {
        await sleep(clock, freshEvery, signal);
        await authorities
          .keepFresh()
          .catch((error: unknown) => log.error({ error }, 'authorities could not be looked after'));
        await lists
          .refresh(authorities.x509.state)
          .catch((error: unknown) => log.error({ error }, 'revocation list not signed; it is tried again'));
      }
    });
    running.run('clock', (signal) =>
      watchClock(clock, signal, (ms) =>
        log.warn({ seconds: Math.round(ms / 1000) }, 'the clock was set, or the machine slept'),
      ),
    );
    running.run('rotation', (signal) => rotating.run(signal));
    running.run('reach', (signal) => reaching.run(signal));
    running.run('housekeeping', (signal) => keepHouse({ options, store, clock, random, log, world }, signal));

    const address = { host: options.listen.host, port: tls.port };
    log.info(
      {
        trustDomain,
        listen: `${address.host}:${address.port}`,
        adminSocket: options.adminSocket,
        ...(observing.health && { health: `${observing.health.host}:${observing.health.port}` }),
      },
      'server ready',
    );
    return {
      address,
      adminSocket: options.adminSocket,
      health: observing.health,
      metrics: observing.metrics,
      crls: listing?.address,
      closed: running.ended,
      async prepare(next) {
        const made = await nodeAttestors(next, attestorPorts);
        return () => attestors.set(made);
      },
      close,
    };

    function isAdminDomain(domain: string): boolean {
      return options.adminIds.some((id) => id.startsWith(`spiffe://${domain}/`));
    }
  } catch (error) {
    await close();
    throw error;
  }
}

/** Reads what was missed as soon as the database is there again. */
async function readAgain(world: FollowedWorld, clock: Clock, signal: AbortSignal): Promise<void> {
  for (;;) {
    await sleep(clock, readAgainAfter, signal);
    try {
      return await world.reach();
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== 'peer/unavailable') throw error;
    }
  }
}

function logCall(log: RootLog, call: Call, fault: Fault | undefined): void {
  if (!fault) return;
  const { caller } = call;
  const from =
    caller.kind === 'unix'
      ? { uid: caller.peer.uid, pid: caller.peer.pid }
      : { address: caller.address, id: caller.svid?.id };
  const event = {
    method: call.method,
    ...from,
    code: fault.code,
    message: fault.message,
    ...(fault.detail && { detail: fault.detail }),
  };
  if (fault.status === Status.INTERNAL) log.error(event, 'call failed');
  else if (fault.code === 'caller/denied') log.warn(event, 'call refused');
  else log.debug(event, 'call refused');
}
