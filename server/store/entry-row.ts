/** Entries as rows, and how entries alike are found. */
import { hash } from 'node:crypto';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import type { EntryRow } from './schema.ts';
import type { StoredEntry } from './store.ts';

type Meaning = Pick<StoredEntry, 'spiffeId' | 'parentId' | 'selectors'>;

/** The kinships of one parent's children are `hash24(parent) * below` and as many above it. */
export const below = 2 ** 24;

/** The first 24 bits of a text's SHA-256. */
export function hash24(text: string): number {
  return hash('sha256', text, 'buffer').readUIntBE(0, 3);
}

/** See `EntryRow.kinship`. A collision costs a comparison, never a wrong answer: see `sameMeaning`. */
export function kinship({ spiffeId, parentId, selectors }: Meaning): number {
  // Neither IDs nor selectors hold a NUL.
  return hash24(parentId) * below + hash24(`${spiffeId}\0${selectors.join('\0')}`);
}

/** Whether two entries are alike: same SPIFFE ID, parent and selector set. */
export function sameMeaning(a: Meaning, b: Meaning): boolean {
  return (
    a.spiffeId === b.spiffeId &&
    a.parentId === b.parentId &&
    a.selectors.length === b.selectors.length &&
    a.selectors.every((selector, i) => selector === b.selectors[i])
  );
}

/** The row of an entry with its kinship. */
export function entryRow(entry: StoredEntry, key: number): EntryRow {
  return {
    seq: entry.seq,
    id: entry.id,
    spiffe_id: entry.spiffeId,
    parent_id: entry.parentId,
    kinship: key,
    selectors: JSON.stringify(entry.selectors),
    x509_svid_ttl: entry.x509SvidTtl,
    jwt_svid_ttl: entry.jwtSvidTtl,
    federates_with: list(entry.federatesWith),
    admin: Number(entry.admin),
    downstream: Number(entry.downstream),
    expires_at: entry.expiresAt,
    dns_names: list(entry.dnsNames),
    revision: entry.revision,
    store_svid: Number(entry.storeSvid),
    hint: entry.hint,
    created_at: entry.createdAt,
    disable_x509_svid_prefetch: Number(entry.disableX509SvidPrefetch),
    jwt_svid_include_jti: Number(entry.jwtSvidIncludeJti),
  };
}

/** The entry of a row. The lists are ours, so they are not checked again. */
export function rowEntry(row: EntryRow): StoredEntry {
  return {
    seq: row.seq,
    id: row.id,
    spiffeId: row.spiffe_id as SpiffeId,
    parentId: row.parent_id as SpiffeId,
    selectors: JSON.parse(row.selectors),
    x509SvidTtl: row.x509_svid_ttl,
    jwtSvidTtl: row.jwt_svid_ttl,
    federatesWith: unlist(row.federates_with) as readonly TrustDomain[],
    admin: row.admin === 1,
    downstream: row.downstream === 1,
    expiresAt: row.expires_at,
    dnsNames: unlist(row.dns_names),
    revision: row.revision,
    storeSvid: row.store_svid === 1,
    hint: row.hint,
    createdAt: row.created_at,
    disableX509SvidPrefetch: row.disable_x509_svid_prefetch === 1,
    jwtSvidIncludeJti: row.jwt_svid_include_jti === 1,
  };
}

const none: readonly string[] = [];
const list = (values: readonly string[]): string => (values.length === 0 ? '[]' : JSON.stringify(values));
const unlist = (text: string): readonly string[] => (text === '[]' ? none : JSON.parse(text));
