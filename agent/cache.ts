/**
 * What the agent knows: the authorised entries, the bundles, and the SVIDs of workloads. One writer each (sync writes the
 * world, renew the SVIDs); the sockets read it through `Identities` (identity-sets.ts), which tell a reader of every change
 * that concerns it.
 */
import type { Fault } from '../src/errors.ts';
import type { Clock } from '../src/run/clock.ts';
import { type Live, live } from '../src/run/live.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';
import type { Selector } from '../src/spiffe/selector.ts';
import { type AuthorizedEntry, isForWorkloads, sameRevision } from './authorized.ts';
import { entryIndex } from './entry-index.ts';
import { type Identities, identitySets } from './identity-sets.ts';
import { nothingRevoked, type Revocations, sameRevocations } from './revocations.ts';
import type { WorkloadSvid, World } from './state.ts';

/** A change of the world as sync brings it: a whole new one, or what is different. */
export interface WorldChange {
  /** Whether what is not named is gone. */
  readonly snapshot: boolean;
  readonly entries: readonly AuthorizedEntry[];
  readonly removedEntryIds: readonly string[];
  readonly bundles: readonly Bundle[];
  readonly removedTrustDomains: readonly TrustDomain[];
  /** All that is revoked, where that was told. */
  readonly revocations?: Revocations | undefined;
  readonly position: bigint;
  readonly logId: string;
}

export interface Cache {
  readonly trustDomain: TrustDomain;
  readonly entries: ReadonlyMap<string, AuthorizedEntry>;
  readonly bundles: ReadonlyMap<TrustDomain, Bundle>;
  /** The bundle of the agent's own trust domain: what its connections trust. */
  readonly ownBundle: Live<Bundle>;
  /** What is revoked in the own trust domain. */
  readonly revocations: Live<Revocations>;
  /** How far in the server's log the world is. */
  readonly position: { readonly position: bigint; readonly logId: string };
  /** Rises at every change of world or SVIDs. */
  readonly changes: Live<number>;
  /** Rises with the position and at every change of entries, bundles or what is revoked. */
  readonly worldChanges: number;
  /** Entries that are to have an SVID now, least recently used first. */
  readonly wanted: ReadonlySet<string>;
  readonly svids: ReadonlyMap<string, WorkloadSvid>;
  /** Whether the entries are what the server authorizes: not so before they were first heard of, nor after `clear`. */
  readonly known: boolean;
  /** Keeps the SVID of an entry at hand, whoever else does; the returned function ends it. */
  keep(entryId: string): () => void;
  /** Told when an entry newly wants an SVID, or another one. */
  onWant(told: () => void): () => void;
  apply(change: WorldChange): void;
  /** Takes one bundle and leaves the rest of the world as it is. */
  putBundle(bundle: Bundle): void;
  /** Takes issued SVIDs; one whose entry is gone meanwhile is dropped. */
  putSvids(svids: readonly WorkloadSvid[]): void;
  /** Notes that no SVID could be got for these entries, so that nobody waits for them; an SVID takes it back. */
  refuse(entryIds: readonly string[], fault: Fault): void;
  refusal(entryId: string): Fault | undefined;
  /** The SVID to serve for an entry: not expired and for its present ID. */
  svidFor(entry: AuthorizedEntry): WorkloadSvid | undefined;
  identities(selectors: Iterable<Selector>): Identities;
  /** Entries that expired lately, some at most, for whoever wonders where they went. */
  readonly lapsed: ReadonlyMap<string, AuthorizedEntry>;
  /** Forgets entries that expired; when the next one does (Unix ms), or Infinity. */
  expire(): number;
  /** Drops everything of workloads: the node was evicted. */
  clear(): void;
}

/** Expired entries remembered. */
const mostLapsed = 100;

/**
 * Makes the cache from what was kept, if anything was.
 * @param capacity SVIDs kept ahead of demand; followed entries are kept beyond it
 */
export function makeCache(options: {
  trustDomain: TrustDomain;
  bundle: Bundle;
  capacity: number;
  clock: Clock;
  world?: World | undefined;
  svids?: readonly WorkloadSvid[];
}): Cache {
  const { trustDomain, capacity, clock } = options;
  const index = entryIndex();
  const bundles = new Map<TrustDomain, Bundle>([[trustDomain, options.bundle]]);
  const ownBundle = live(options.bundle);
  const revocations = live(nothingRevoked);
  const svids = new Map<string, WorkloadSvid>();
  const expiring = new Map<string, number>();
  const lapsed = new Map<string, AuthorizedEntry>();
  const refusals = new Map<string, Fault>();
  const wanted = new Set<string>();
  const followed = new Map<string, number>();
  const changes = live(0);
  const wants = new Set<() => void>();
  let position = { position: 0n, logId: '' };
  let worldChanges = 0;
  let known = false;

  const now = (): number => clock.now();
  const isCurrent = (entry: AuthorizedEntry): boolean => entry.expiresAt === 0 || entry.expiresAt * 1000 > now();
  const servable = (entry: AuthorizedEntry): WorkloadSvid | undefined => {
    const svid = svids.get(entry.id);
    return svid !== undefined && svid.id === entry.spiffeId && svid.notAfter > now() ? svid : undefined;
  };
  const changed = (): void => changes.set(changes.value + 1);
  const wantMore = (): void => {
    for (const told of [...wants]) told();
  };

  // Which entries have an SVID kept for them.
  const want = (id: string): boolean => {
    const isNew = !wanted.delete(id);
    wanted.add(id);
    return isNew;
  };
  const drop = (id: string): void => {
    wanted.delete(id);
    svids.delete(id);
    refusals.delete(id);
  };
  const trim = (): void => {
    for (const id of wanted) {
      if (wanted.size <= capacity) return;
      if (!followed.has(id)) drop(id);
    }
  };
  const prefetch = (): boolean => {
    let more = false;
    if (wanted.size >= capacity || wanted.size >= index.byId.size) return more;
    for (const entry of index.byId.values()) {
      if (wanted.size >= capacity) break;
      if (!entry.disableX509SvidPrefetch && isForWorkloads(entry) && !wanted.has(entry.id))
        more = want(entry.id) || more;
    }
    return more;
  };

  /** Counts entries in as followed; whether one of them is newly wanted. */
  const hold = (ids: Iterable<string>): boolean => {
    let more = false;
    for (const id of ids) {
      followed.set(id, (followed.get(id) ?? 0) + 1);
      more = want(id) || more;
    }
    trim();
    return more;
  };
  const release = (ids: Iterable<string>): void => {
    for (const id of ids) {
      const left = (followed.get(id) ?? 1) - 1;
      if (left === 0) followed.delete(id);
      else followed.set(id, left);
    }
    trim();
  };
  const match = (held: ReadonlySet<Selector>): readonly AuthorizedEntry[] =>
    index.match(held).filter((entry) => isForWorkloads(entry) && isCurrent(entry));
  const sets = identitySets({
    now,
    match,
    bundlesOf: (domains) => [...domains].sort().flatMap((domain) => bundles.get(domain) ?? []),
    settled: (entry) => servable(entry) !== undefined || refusals.has(entry.id),
    keep: (entries) => hold(entries.map(({ id }) => id)),
    release: (entries) => release(entries.map(({ id }) => id)),
    wantMore,
  });

  const cache: Cache = {
    trustDomain,
    entries: index.byId,
    bundles,
    ownBundle,
    revocations,
    get position() {
      return position;
    },
    changes,
    get worldChanges() {
      return worldChanges;
    },
    wanted,
    svids,
    onWant(told) {
      wants.add(told);
      return () => wants.delete(told);
    },
    apply(change) {
      const touched = new Set<string>();
      const drops = new Set(change.removedEntryIds);
      if (change.snapshot) {
        const present = new Set(change.entries.map(({ id }) => id));
        for (const id of index.byId.keys()) if (!present.has(id)) drops.add(id);
      }
      for (const id of drops) {
        if (index.delete(id)) touched.add(id);
        expiring.delete(id);
        drop(id);
      }
      for (const entry of change.entries) {
        const held = index.byId.get(entry.id);
        if (held !== undefined && sameRevision(held, entry)) continue;
        index.set(entry);
        lapsed.delete(entry.id);
        touched.add(entry.id);
        refusals.delete(entry.id);
        if (entry.expiresAt === 0) expiring.delete(entry.id);
        else expiring.set(entry.id, entry.expiresAt * 1000);
        // What a store has is not for processes, nor the other way round.
        if (held !== undefined && isForWorkloads(held) !== isForWorkloads(entry)) drop(entry.id);
      }
      if (change.snapshot) known = true;
      const domains = applyBundles(change);
      position = { position: change.position, logId: change.logId };
      worldChanges++;
      const revoked = change.revocations;
      const isRevoking = revoked !== undefined && !sameRevocations(revoked, revocations.value);
      if (isRevoking) revocations.set(revoked);
      if (touched.size === 0 && domains.size === 0 && !isRevoking) return;

      const concerned = domains.has(trustDomain) || isRevoking;
      const toTell = sets.renew(
        (entries) =>
          concerned ||
          entries.some(
            ({ id, federatesWith }) => touched.has(id) || federatesWith.some((domain) => domains.has(domain)),
          ),
      );
      trim();
      prefetch();
      wantMore();
      sets.tell(toTell);
      changed();
    },
    putBundle(bundle) {
      cache.apply({
        snapshot: false,
        entries: [],
        removedEntryIds: [],
        bundles: [bundle],
        removedTrustDomains: [],
        ...position,
      });
    },
    putSvids(issued) {
      const taken = new Set<string>();
      for (const svid of issued) {
        const entry = index.byId.get(svid.entryId);
        if (entry === undefined || entry.spiffeId !== svid.id) continue;
        // Of what goes to stores nobody has said yet that it is wanted when it comes back from the disk.
        if (entry.storeSvid) want(entry.id);
        if (!wanted.has(svid.entryId)) continue;
        svids.set(svid.entryId, svid);
        refusals.delete(svid.entryId);
        taken.add(svid.entryId);
      }
      if (taken.size === 0) return;
      sets.changed(taken);
      changed();
    },
    refuse(entryIds, fault) {
      const fresh = new Set(entryIds.filter((id) => index.byId.has(id) && !refusals.has(id)));
      for (const id of entryIds) if (index.byId.has(id)) refusals.set(id, fault);
      if (fresh.size > 0) sets.changed(fresh);
    },
    get known() {
      return known;
    },
    keep(entryId) {
      if (hold([entryId])) wantMore();
      return () => release([entryId]);
    },
    refusal: (entryId) => refusals.get(entryId),
    lapsed,
    svidFor: servable,
    identities: sets.of,
    expire() {
      const gone: string[] = [];
      let next = Number.POSITIVE_INFINITY;
      for (const [id, at] of expiring) {
        if (at <= now()) {
          gone.push(id);
          lapsed.set(id, index.byId.get(id)!);
          if (lapsed.size > mostLapsed) lapsed.delete(lapsed.keys().next().value!);
        } else next = Math.min(next, at);
      }
      if (gone.length > 0) {
        cache.apply({
          snapshot: false,
          entries: [],
          removedEntryIds: gone,
          bundles: [],
          removedTrustDomains: [],
          ...position,
        });
      }
      return next;
    },
    clear() {
      cache.apply({
        snapshot: true,
        entries: [],
        removedEntryIds: [],
        bundles: [],
        removedTrustDomains: [],
        position: 0n,
        logId: '',
      });
      known = false;
    },
  };

  function applyBundles(change: WorldChange): Set<TrustDomain> {
    const domains = new Set<TrustDomain>();
    for (const bundle of change.bundles) {
      const held = bundles.get(bundle.trustDomain);
      if (held !== undefined && sameBundle(held, bundle)) continue;
      bundles.set(bundle.trustDomain, bundle);
      domains.add(bundle.trustDomain);
    }
    const present = new Set(change.bundles.map((bundle) => bundle.trustDomain));
    const gone = change.snapshot
      ? [...bundles.keys()].filter((domain) => !present.has(domain))
      : change.removedTrustDomains;
    // The own bundle never goes: without it nothing could be trusted again.
    for (const domain of gone) if (domain !== trustDomain && bundles.delete(domain)) domains.add(domain);
    if (domains.has(trustDomain)) ownBundle.set(bundles.get(trustDomain)!);
    return domains;
  }

  if (options.world !== undefined) {
    const { entries, bundles: kept, revoked, ...at } = options.world;
    cache.apply({
      snapshot: true,
      entries: [...entries.values()],
      removedEntryIds: [],
      // What is trusted was written last beside the agent's own SVID.
      bundles: [...kept.values()].filter(
        (bundle) => bundle.trustDomain !== trustDomain || bundle.sequence > options.bundle.sequence,
      ),
      removedTrustDomains: [],
      ...at,
      revocations: revoked,
    });
    cache.putSvids(options.svids ?? []);
  }
  return cache;
}

/** Whether two bundles hold the same authorities; a sequence that moved without a change is no change. */
function sameBundle(one: Bundle, other: Bundle): boolean {
  if (one === other) return true;
  const keys = (a: Bundle['jwtAuthorities'], b: Bundle['jwtAuthorities']): boolean =>
    a.length === b.length &&
    a.every((key, at) => {
      const peer = b[at]!;
      return (
        key.keyId === peer.keyId &&
        key.tainted === peer.tainted &&
        key.expiresAt === peer.expiresAt &&
        key.publicKey.equals(peer.publicKey)
      );
    });
  return (
    one.refreshHint === other.refreshHint &&
    one.x509Authorities.length === other.x509Authorities.length &&
    one.x509Authorities.every((authority, at) => {
      const peer = other.x509Authorities[at]!;
      return authority.tainted === peer.tainted && authority.certificate.equals(peer.certificate);
    }) &&
    keys(one.jwtAuthorities, other.jwtAuthorities) &&
    keys(one.witAuthorities, other.witAuthorities)
  );
}
