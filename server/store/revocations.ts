/** What was issued and what of it is revoked, in the database. Times are Unix milliseconds. */
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { revocationKey } from './revocation-key.ts';
import type { IssuedRow, RevocationRow } from './schema.ts';
import { insert, type Session, statement } from './statement.ts';
import type { Issuance, Revocation, RevocationKind, Revoked, StoredCrl } from './store.ts';
import type { Transaction } from './transaction.ts';

const issuedColumns = [
  'expires_at',
  'serial',
  'issued_at',
  'authority',
  'spiffe_id',
  'entry_id',
  'agent_id',
] as const satisfies readonly (keyof IssuedRow)[];
const revocationColumns = [
  'kind',
  'value',
  'revoked_at',
  'expires_at',
  'authority',
  'spiffe_id',
] as const satisfies readonly (keyof RevocationRow)[];

const bySerial = statement<{ serial: string; now: number }, IssuedRow>((db, slot) =>
  db
    .selectFrom('issued')
    .select(issuedColumns)
    .where('expires_at', '>', slot('now'))
    .where('serial', '=', slot('serial'))
    .limit(1),
);
const issuedFor = (column: 'spiffe_id' | 'entry_id' | 'agent_id') =>
  statement<{ value: string; at: number }, IssuedRow>((db, slot) =>
    db
      .selectFrom('issued')
      .select(issuedColumns)
      .where('expires_at', '>', slot('at'))
      .where(column, '=', slot('value'))
      .where('issued_at', '<=', slot('at')),
  );
const issuedOf = {
  subject: issuedFor('spiffe_id'),
  entry: issuedFor('entry_id'),
  agent: issuedFor('agent_id'),
} as const;
const one = statement<{ kind: string; value: string }, RevocationRow>((db, slot) =>
  db
    .selectFrom('revocations')
    .select(revocationColumns)
    .where('kind', '=', slot('kind'))
    .where('value', '=', slot('value')),
);
const all = statement<Record<string, never>, RevocationRow>((db) =>
  db.selectFrom('revocations').select(revocationColumns),
);
const remove = statement<{ kind: string; value: string }, unknown>((db, slot) =>
  db.deleteFrom('revocations').where('kind', '=', slot('kind')).where('value', '=', slot('value')),
);
const ended = statement<{ now: number; limit: number }, RevocationRow>((db, slot) =>
  db.selectFrom('revocations').select(revocationColumns).where('expires_at', '<', slot('now')).limit(slot('limit')),
);
const forgetIssued = statement<{ now: number; limit: number }, { serial: string }>((db, slot) =>
  db
    .deleteFrom('issued')
    .where('expires_at', '<', slot('now'))
    .where('serial', 'in', (inner) =>
      inner
        .selectFrom('issued')
        .select('serial')
        .where('expires_at', '<', slot('now'))
        .orderBy('expires_at')
        .limit(slot('limit')),
    )
    .returning('serial'),
);
const crls = statement<Record<string, never>, { authority: string; number: string; expires_at: number; der: string }>(
  (db) => db.selectFrom('crls').select(['authority', 'number', 'expires_at', 'der']),
);
const removeCrl = statement<{ authority: string }, unknown>((db, slot) =>
  db.deleteFrom('crls').where('authority', '=', slot('authority')),
);

/** See `Revocations.record`. A serial that is there already (a write whose answer was lost) stays as it is. */
export async function recordIssued(tx: Transaction, issued: readonly Issuance[]): Promise<void> {
  await insert(
    tx,
    'issued',
    issued.map((svid) => ({
      expires_at: svid.expiresAt,
      serial: svid.serial,
      issued_at: svid.issuedAt,
      authority: svid.authority,
      spiffe_id: svid.spiffeId,
      entry_id: svid.entryId,
      agent_id: svid.agentId,
    })),
  );
}

/** See `Revocations.find`. */
export async function findIssued(session: Session, serial: string, now: number): Promise<Issuance | undefined> {
  const row = (await session.all(bySerial, { serial, now }))[0];
  return (
    row && {
      serial: row.serial,
      authority: row.authority,
      spiffeId: row.spiffe_id as SpiffeId,
      entryId: row.entry_id,
      agentId: row.agent_id as SpiffeId | '',
      issuedAt: row.issued_at,
      expiresAt: row.expires_at,
    }
  );
}

/** See `Revocations.add`. */
export async function addRevocations(tx: Transaction, revocations: readonly Revocation[]): Promise<Revoked[]> {
  const done: Revoked[] = [];
  for (const given of revocations) {
    const { kind, value } = given;
    const held = (await tx.all(one, { kind, value }))[0];
    const moves = held !== undefined && kind !== 'serial' && kind !== 'jti' && held.revoked_at < given.revokedAt;
    if (held !== undefined && !moves) {
      done.push({ revocation: rowRevocation(held), already: true });
      continue;
    }
    if (held !== undefined) await tx.all(remove, { kind, value });
    await insert(tx, 'revocations', [
      {
        kind,
        value,
        revoked_at: given.revokedAt,
        expires_at: given.expiresAt,
        authority: given.authority,
        spiffe_id: given.spiffeId,
      },
    ]);
    tx.append({ kind: 'revocation', key: revocationKey(given), revocation: given });
    done.push({ revocation: given, already: false });
  }
  return done;
}

/** See `Revocations.addIssued`. */
export async function addIssued(
  tx: Transaction,
  of: 'subject' | 'entry' | 'agent',
  value: string,
  revokedAt: number,
): Promise<Revoked[]> {
  const rows = await tx.all(issuedOf[of], { value, at: revokedAt });
  return await addRevocations(
    tx,
    rows.map((row) => ({
      kind: 'serial',
      value: row.serial,
      revokedAt,
      expiresAt: row.expires_at,
      authority: row.authority,
      spiffeId: row.spiffe_id,
    })),
  );
}

/** See `Revocations.list`. */
export async function listRevocations(session: Session): Promise<Revocation[]> {
  return (await session.all(all, {})).map(rowRevocation);
}

/** See `Revocations.putCrl`. */
export async function putCrl(tx: Transaction, { authority, number, expiresAt, der }: StoredCrl): Promise<boolean> {
  const held = (await listCrls(tx)).find((crl) => crl.authority === authority);
  if (held !== undefined && BigInt(held.number) >= BigInt(number)) return false;
  await tx.all(removeCrl, { authority });
  await insert(tx, 'crls', [{ authority, number, expires_at: expiresAt, der }]);
  tx.append({ kind: 'crl', authority, crl: { authority, number, expiresAt, der } });
  return true;
}

/** See `Revocations.listCrls`. */
export async function listCrls(session: Session): Promise<StoredCrl[]> {
  return (await session.all(crls, {})).map(({ authority, number, expires_at, der }) => ({
    authority,
    number,
    expiresAt: expires_at,
    der,
  }));
}

/** See `Revocations.prune`. */
export async function pruneRevocations(tx: Transaction, now: number, limit: number): Promise<number> {
  const issued = await tx.all(forgetIssued, { now, limit });
  const over = await tx.all(ended, { now, limit });
  for (const row of over) {
    await tx.all(remove, { kind: row.kind, value: row.value });
    tx.append({ kind: 'revocation', key: revocationKey(rowRevocation(row)), revocation: undefined });
  }
  const lists = (await listCrls(tx)).filter(({ expiresAt }) => expiresAt < now);
  for (const { authority } of lists) {
    await tx.all(removeCrl, { authority });
    tx.append({ kind: 'crl', authority, crl: undefined });
  }
  return Math.max(issued.length, over.length) + lists.length;
}

function rowRevocation(row: RevocationRow): Revocation {
  return {
    kind: row.kind as RevocationKind,
    value: row.value,
    revokedAt: row.revoked_at,
    expiresAt: row.expires_at,
    authority: row.authority,
    spiffeId: row.spiffe_id,
  };
}
