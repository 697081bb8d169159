/** Registration entries in the database. */
import { sql } from 'kysely';
import type { EntryDraft, EntryPatch } from '../../src/spiffe/entry.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { selectorSet } from '../../src/spiffe/selector.ts';
import { unknownBundle } from './bundles.ts';
import { below, entryRow, hash24, kinship, rowEntry, sameMeaning } from './entry-row.ts';
import { type EntryRow, entryColumns } from './schema.ts';
import { insert, listStatement, type Session, statement } from './statement.ts';
import type { Created, Entries, Stamp, StoredEntry } from './store.ts';
import type { Transaction } from './transaction.ts';

type Updated = Awaited<ReturnType<Entries['update']>>[number];

const byKinship = listStatement<number, EntryRow>((db, values) =>
  db.selectFrom('entries').select(entryColumns).where('kinship', 'in', values).orderBy('seq'),
);
const idsTaken = listStatement<string, { id: string }>((db, values) =>
  db.selectFrom('entries').select('id').where('id', 'in', values),
);
const byId = statement<{ id: string }, EntryRow>((db, slot) =>
  db.selectFrom('entries').select(entryColumns).where('id', '=', slot('id')),
);
const page = statement<{ after: number; limit: number }, EntryRow>((db, slot) =>
  db.selectFrom('entries').select(entryColumns).where('seq', '>', slot('after')).orderBy('seq').limit(slot('limit')),
);
const replace = statement<{ [K in keyof EntryRow]: EntryRow[K] }, unknown>((db, slot) =>
  db
    .updateTable('entries')
    .set({
      spiffe_id: slot('spiffe_id'),
      parent_id: slot('parent_id'),
      kinship: slot('kinship'),
      selectors: slot('selectors'),
      x509_svid_ttl: slot('x509_svid_ttl'),
      jwt_svid_ttl: slot('jwt_svid_ttl'),
      federates_with: slot('federates_with'),
      admin: slot('admin'),
      downstream: slot('downstream'),
      expires_at: slot('expires_at'),
      dns_names: slot('dns_names'),
      revision: slot('revision'),
      store_svid: slot('store_svid'),
      hint: slot('hint'),
      disable_x509_svid_prefetch: slot('disable_x509_svid_prefetch'),
      jwt_svid_include_jti: slot('jwt_svid_include_jti'),
    })
    .where('seq', '=', slot('seq')),
);
const remove = statement<{ seq: number }, unknown>((db, slot) =>
  db.deleteFrom('entries').where('seq', '=', slot('seq')),
);
const childrenOf = statement<{ parent: string; first: number; last: number }, EntryRow>((db, slot) =>
  db
    .selectFrom('entries')
    .select(entryColumns)
    .where('kinship', '>=', slot('first'))
    .where('kinship', '<=', slot('last'))
    .where('parent_id', '=', slot('parent'))
    .orderBy('seq'),
);
// The literal condition is that of the partial index over the few entries that federate: both engines then use it.
const federating = statement<{ pattern: string }, EntryRow>((db, slot) =>
  db
    .selectFrom('entries')
    .select(entryColumns)
    .where(sql<boolean>`federates_with <> '[]'`)
    .where(sql<boolean>`federates_with like ${slot('pattern')} escape '!'`)
    .orderBy('seq'),
);
const expired = statement<{ now: number; limit: number }, EntryRow>((db, slot) =>
  db
    .selectFrom('entries')
    .select(entryColumns)
    .where(sql<boolean>`expires_at > 0`)
    .where('expires_at', '<', slot('now'))
    .orderBy('expires_at')
    .limit(slot('limit')),
);

/** See `Entries.create`. */
export async function createEntries(
  tx: Transaction,
  drafts: readonly { draft: EntryDraft; stamp: Stamp }[],
): Promise<Created[]> {
  const wanted = drafts.map(({ draft, stamp }) => newEntry(draft, stamp));
  const keys = wanted.map(kinship);
  const alike = new Map<number, StoredEntry[]>();
  const remember = (key: number, entry: StoredEntry): void => {
    const group = alike.get(key);
    if (group === undefined) alike.set(key, [entry]);
    else group.push(entry);
  };
  for (const row of await byKinship(tx, keys)) remember(row.kinship, rowEntry(row));
  const ids = new Set(
    (
      await idsTaken(
        tx,
        wanted.map((entry) => entry.id),
      )
    ).map((row) => row.id),
  );

  const outcomes: Created[] = [];
  const rows: EntryRow[] = [];
  for (const [i, entry] of wanted.entries()) {
    const key = keys[i]!;
    const similar = alike.get(key)?.find((other) => sameMeaning(other, entry));
    if (similar !== undefined) {
      outcomes.push({ similar });
      continue;
    }
    if (ids.has(entry.id)) {
      outcomes.push({ taken: entry.id });
      continue;
    }
    const unknown = await unknownBundle(tx, entry.federatesWith);
    if (unknown !== undefined) {
      outcomes.push({ unknownBundle: unknown });
      continue;
    }
    const created: StoredEntry = { ...entry, seq: tx.next };
    tx.append({ kind: 'entry', id: created.id, entry: created, before: undefined });
    rows.push(entryRow(created, key));
    remember(key, created);
    ids.add(created.id);
    outcomes.push({ created });
  }
  await insert(tx, 'entries', rows);
  return outcomes;
}

/** See `Entries.update`. */
export async function updateEntries(
  tx: Transaction,
  patches: readonly { id: string; patch: EntryPatch }[],
): Promise<Updated[]> {
  const outcomes: Updated[] = [];
  for (const { id, patch } of patches) {
    const old = await getEntry(tx, id);
    if (old === undefined) {
      outcomes.push({ missing: true });
      continue;
    }
    const unknown = patch.federatesWith === undefined ? undefined : await unknownBundle(tx, patch.federatesWith);
    if (unknown !== undefined) {
      outcomes.push({ unknownBundle: unknown });
      continue;
    }
    outcomes.push({ updated: await rewrite(tx, old, patch) });
  }
  return outcomes;
}

/** See `Entries.delete`. */
export async function deleteEntries(tx: Transaction, ids: readonly string[]): Promise<(StoredEntry | undefined)[]> {
  const outcomes: (StoredEntry | undefined)[] = [];
  for (const id of ids) {
    const old = await getEntry(tx, id);
    if (old !== undefined) await removeEntry(tx, old);
    outcomes.push(old);
  }
  return outcomes;
}

/** See `Entries.get`. */
export async function getEntry(session: Session, id: string): Promise<StoredEntry | undefined> {
  const rows = await session.all(byId, { id });
  return rows[0] && rowEntry(rows[0]);
}

/** See `Entries.scan`. */
export async function scanEntries(session: Session, after: number, limit: number): Promise<StoredEntry[]> {
  return (await session.all(page, { after, limit })).map(rowEntry);
}

/** See `Entries.prune`. */
export async function pruneEntries(tx: Transaction, now: number, limit: number): Promise<number> {
  const rows = await tx.all(expired, { now, limit });
  for (const row of rows) await removeEntry(tx, rowEntry(row));
  return rows.length;
}

/** Deletes every entry whose parent is `parent`. */
export async function deleteChildren(tx: Transaction, parent: SpiffeId): Promise<void> {
  const first = hash24(parent) * below;
  for (const row of await tx.all(childrenOf, { parent, first, last: first + below - 1 }))
    await removeEntry(tx, rowEntry(row));
}

/** Entries that federate with a trust domain. */
export async function entriesFederatingWith(session: Session, trustDomain: TrustDomain): Promise<StoredEntry[]> {
  const pattern = `%"${trustDomain.replaceAll('_', '!_')}"%`;
  return (await session.all(federating, { pattern })).map(rowEntry);
}

/** Deletes one entry that was read in this transaction. */
export async function removeEntry(tx: Transaction, old: StoredEntry): Promise<void> {
  await tx.all(remove, { seq: old.seq });
  tx.append({
    kind: 'entry',
    id: old.id,
    entry: undefined,
    before: { spiffeId: old.spiffeId, parentId: old.parentId },
  });
}

/** Writes one entry that was read in this transaction anew, with its revision one higher. */
export async function rewrite(tx: Transaction, old: StoredEntry, patch: EntryPatch): Promise<StoredEntry> {
  const { id, createdAt, seq } = old;
  const given = Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined)) as EntryPatch;
  const merged = { ...old, ...given, id, createdAt, seq, revision: old.revision + 1 };
  const entry: StoredEntry = { ...merged, selectors: selectorSet(merged.selectors) };
  await tx.all(replace, entryRow(entry, kinship(entry)));
  tx.append({ kind: 'entry', id, entry, before: { spiffeId: old.spiffeId, parentId: old.parentId } });
  return entry;
}

function newEntry(draft: EntryDraft, stamp: Stamp): Omit<StoredEntry, 'seq'> {
  return {
    id: draft.id === '' ? stamp.id : draft.id,
    spiffeId: draft.spiffeId,
    parentId: draft.parentId,
    selectors: selectorSet(draft.selectors),
    x509SvidTtl: draft.x509SvidTtl,
    jwtSvidTtl: draft.jwtSvidTtl,
    federatesWith: draft.federatesWith,
    admin: draft.admin,
    downstream: draft.downstream,
    expiresAt: draft.expiresAt,
    dnsNames: draft.dnsNames,
    revision: 0,
    storeSvid: draft.storeSvid,
    hint: draft.hint,
    createdAt: stamp.now,
    disableX509SvidPrefetch: draft.disableX509SvidPrefetch,
    jwtSvidIncludeJti: draft.jwtSvidIncludeJti,
  };
}
