/**
 * What an agent takes from its server: entries and bundles, read once into values. Whatever belongs to another trust
 * domain, is malformed, or is more than a server of good faith would send is refused here; inside, nothing checks again.
 */
import { Fault, quote } from '../src/errors.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { Entry } from '../src/spiffe/entry.ts';
import { isMemberOf, isReserved, pathOf, type TrustDomain } from '../src/spiffe/id.ts';
import { bundleFromWire, type WireBundle } from '../src/wire/bundle.ts';
import { type EntryMask, entryFromWire, type WireEntry } from '../src/wire/entry.ts';

/** What an agent keeps of a registration entry: the fields its mask asks for. */
export type AuthorizedEntry = Omit<Entry, 'parentId' | 'x509SvidTtl' | 'jwtSvidTtl' | 'dnsNames'>;

/** The mask that goes with AuthorizedEntry. */
export const entryMask: EntryMask = {
  spiffe_id: true,
  selectors: true,
  federates_with: true,
  admin: true,
  downstream: true,
  expires_at: true,
  revision_number: true,
  store_svid: true,
  hint: true,
  created_at: true,
  additional_attributes: true,
};

/** The most of each kind that is taken from a server; more is a broken or hostile one. */
export const caps = {
  entries: 500_000,
  selectors: 200,
  federatesWith: 1_000,
  authorities: 1_000,
  deniedTokens: 100_000,
  bundles: 10_000,
} as const;

/** One list for all the entries that federate with nobody. */
const nowhere: readonly TrustDomain[] = Object.freeze([]);

/** Reads one entry of `trustDomain`. Throws `input/invalid` or `id/invalid`; an entry of another trust domain is refused. */
export function readEntry(wire: WireEntry, trustDomain: TrustDomain): AuthorizedEntry {
  const what = `entry ${quote(wire.id)}`;
  if (wire.id === '' || wire.id.length > 255) throw new Fault('input/invalid', `${what} has an id that is not valid`);
  if (wire.selectors.length > caps.selectors)
    throw tooMany(`selectors in ${what}`, wire.selectors.length, caps.selectors);
  if (wire.federates_with.length > caps.federatesWith) {
    throw tooMany(`trust domains in ${what}`, wire.federates_with.length, caps.federatesWith);
  }
  const entry = entryFromWire(wire);
  if (!isMemberOf(entry.spiffeId, trustDomain) || pathOf(entry.spiffeId) === '') {
    throw new Fault(
      'input/invalid',
      `${what} is for ${quote(entry.spiffeId)}: not a workload of trust domain ${quote(trustDomain)}`,
    );
  }
  return {
    id: entry.id,
    spiffeId: entry.spiffeId,
    selectors: entry.selectors,
    federatesWith:
      entry.federatesWith.length === 0 ? nowhere : entry.federatesWith.filter((other) => other !== trustDomain),
    admin: entry.admin,
    downstream: entry.downstream,
    expiresAt: entry.expiresAt,
    revision: entry.revision,
    storeSvid: entry.storeSvid,
    hint: entry.hint,
    createdAt: entry.createdAt,
    disableX509SvidPrefetch: entry.disableX509SvidPrefetch,
    jwtSvidIncludeJti: entry.jwtSvidIncludeJti,
  };
}

/**
 * Reads entries; one that cannot be read is left out and reported, so that it does not take the others with it.
 * Throws `limit/exceeded` for more than an agent takes.
 */
export function readEntries(
  wire: readonly WireEntry[],
  trustDomain: TrustDomain,
  refused: (entryId: string, error: unknown) => void,
): AuthorizedEntry[] {
  if (wire.length > caps.entries) throw tooMany('entries', wire.length, caps.entries);
  return wire.flatMap((entry) => {
    try {
      return readEntry(entry, trustDomain);
    } catch (error) {
      refused(entry.id, error);
      return [];
    }
  });
}

/**
 * Whether workloads may hold the entry's identity. Not so: entries below `/spire`, which name nodes and servers; entries
 * whose SVID is stored, which go to a store and never to a process; and a join token's node alias, which a server lists
 * among what it authorises the agent for, but whose `spiffe_id` selector no process can have.
 */
export function isForWorkloads(entry: AuthorizedEntry): boolean {
  return (
    !entry.storeSvid &&
    !isReserved(entry.spiffeId) &&
    !entry.selectors.some((selector) => selector.startsWith('spiffe_id:'))
  );
}

/** Whether two readings of one entry ask for the same SVID: a revision, or a deletion and new creation, changes it. */
export function sameRevision(
  one: { readonly revision: number; readonly createdAt: number },
  other: { readonly revision: number; readonly createdAt: number },
): boolean {
  return one.revision === other.revision && one.createdAt === other.createdAt;
}

/** Reads a bundle and checks whose it is. Throws `bundle/invalid`. */
export function readBundle(wire: WireBundle, expected?: TrustDomain): Bundle {
  const most = Math.max(wire.x509_authorities.length, wire.jwt_authorities.length, wire.wit_authorities?.length ?? 0);
  if (most > caps.authorities)
    throw tooMany(`authorities of trust domain ${quote(wire.trust_domain)}`, most, caps.authorities);
  const bundle = bundleFromWire(wire);
  if (expected !== undefined && bundle.trustDomain !== expected) {
    throw new Fault(
      'bundle/invalid',
      `the server sent the bundle of ${quote(bundle.trustDomain)}, not that of ${quote(expected)}`,
    );
  }
  return bundle;
}

/** The refusal of a message that holds more of something than an agent takes. */
export function tooMany(what: string, found: number, most: number): Fault {
  return new Fault('limit/exceeded', `the server sent ${found} ${what}; at most ${most} are taken`);
}
