/** What has to be done in stores, from what the agent knows and what lies there: a pure function. */
import { asFault, Fault, quote } from '../../src/errors.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import { oldestFirst } from '../entry-index.ts';
import { completeFor } from '../revocations.ts';
import type { Ledger, Stored } from './ledger.ts';
import { digestOf } from './secret.ts';
import { readSettings, storeNamed } from './settings.ts';
import type { Place, Secret, SvidStore } from './svid-store.ts';

/** The stores that are configured, by name, each with the settings that its entries may have. */
export type Stores = ReadonlyMap<string, { readonly store: SvidStore; readonly settings: readonly string[] }>;

/** One thing to do. `key` is of the store and the place. */
export type Work =
  | {
      readonly kind: 'put';
      readonly key: string;
      readonly store: SvidStore;
      readonly place: Place;
      readonly entry: AuthorizedEntry;
      readonly secret: Secret;
      readonly digest: string;
    }
  | {
      readonly kind: 'remove';
      readonly key: string;
      readonly store: SvidStore;
      readonly place: Place;
      readonly stored: Stored;
    };

export interface Plan {
  readonly work: readonly Work[];
  /** Entries whose SVID is wanted. */
  readonly wanted: ReadonlySet<string>;
  /** What keeps an entry from being stored, or a secret from being removed, by the entry's id. */
  readonly faults: ReadonlyMap<string, Fault>;
}

/** What of the agent is looked at. */
export type Known = Pick<Cache, 'entries' | 'bundles' | 'ownBundle' | 'revocations' | 'svidFor' | 'known'>;

/** @param now Unix milliseconds */
export function plan(cache: Known, stores: Stores, stored: Ledger['stored'], now: number): Plan {
  const faults = new Map<string, Fault>();
  const wanted = new Set<string>();
  const work: Work[] = [];
  /** Whose each place is. */
  const owners = new Map<string, AuthorizedEntry>();

  const entries = [...cache.entries.values()].filter(
    (entry) => entry.storeSvid && (entry.expiresAt === 0 || entry.expiresAt * 1000 > now),
  );
  // The oldest first: an entry made later takes nobody's place.
  for (const entry of entries.sort(oldestFirst)) {
    try {
      const { key, store, place } = placeOf(entry.selectors, stores);
      const owner = owners.get(key);
      if (owner !== undefined) throw taken(owner, key);
      owners.set(key, entry);
      wanted.add(entry.id);
      const secret = secretOf(entry, cache, store.takesCrls ?? false);
      if (secret === undefined) continue;
      const digest = digestOf(secret);
      const there = stored.get(key);
      if (there?.digest !== digest || there.entryId !== entry.id)
        work.push({ kind: 'put', key, store, place, entry, secret, digest });
    } catch (error) {
      faults.set(entry.id, asFault(error));
    }
  }
  // Before the entries are known, and after an eviction, that one is missing means nothing.
  if (!cache.known) return { work, wanted, faults };
  for (const [key, record] of stored) {
    // Whoever has the place now puts what is there.
    if (owners.has(key)) continue;
    try {
      const { store, place } = placeOf(record.selectors, stores);
      work.push({ kind: 'remove', key, store, place, stored: record });
    } catch (error) {
      faults.set(record.entryId, asFault(error));
    }
  }
  return { work, wanted, faults };
}

function placeOf(selectors: readonly Selector[], stores: Stores): { key: string; store: SvidStore; place: Place } {
  const name = storeNamed(selectors);
  const found = stores.get(name);
  if (found === undefined) {
    throw new Fault('input/invalid', `the store ${quote(name)} is not configured on this agent`, {
      hint:
        stores.size === 0
          ? 'Configure it under svidStores.'
          : `Configure it under svidStores, or name one of ${[...stores.keys()].join(', ')}.`,
    });
  }
  const place = found.store.place(readSettings(selectors, found.settings));
  return { key: `${name} ${place.key}`, store: found.store, place };
}

const taken = (owner: AuthorizedEntry, key: string): Fault =>
  new Fault(
    'state/refused',
    `entry ${quote(owner.id)} of ${owner.spiffeId} is stored in the same place, ${quote(key)}`,
    {
      hint: 'Give one of the two another place.',
    },
  );

function secretOf(entry: AuthorizedEntry, cache: Known, withCrls: boolean): Secret | undefined {
  const svid = cache.svidFor(entry);
  if (svid === undefined) return undefined;
  const bundleOf = (domain: TrustDomain) => cache.bundles.get(domain) ?? [];
  return {
    id: svid.id,
    chain: svid.chain,
    pkcs8: svid.pkcs8,
    bundle: cache.ownBundle.value,
    federated: [...entry.federatesWith].sort().flatMap(bundleOf),
    ...(withCrls && { crls: completeFor(cache.revocations.value, cache.ownBundle.value) }),
  };
}
