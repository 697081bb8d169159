/** The change log in the database: reading it and forgetting its old end. Appending is transaction.ts's. */
import { Fault } from '../../src/errors.ts';
import { rowChange } from './change-row.ts';
import type { Tables } from './schema.ts';
import { type Session, statement } from './statement.ts';
import type { Sized, Transaction } from './transaction.ts';

/** Where the log begins and ends. */
export interface Head {
  readonly logId: string;
  readonly position: number;
  readonly oldest: number;
}

const head = statement<Record<string, never>, { log_id: string; position: number; oldest: number }>((db) =>
  db.selectFrom('log_head').select(['log_id', 'position', 'oldest']).where('one', '=', 1),
);
const page = statement<{ after: number; limit: number }, Tables['changes']>((db, slot) =>
  db
    .selectFrom('changes')
    .select(['position', 'kind', 'subject', 'value', 'before_spiffe_id', 'before_parent_id'])
    .where('position', '>', slot('after'))
    .orderBy('position')
    .limit(slot('limit')),
);
const forget = statement<{ position: number }, unknown>((db, slot) =>
  db.deleteFrom('changes').where('position', '<=', slot('position')),
);
const moveOldest = statement<{ oldest: number }, unknown>((db, slot) =>
  db
    .updateTable('log_head')
    .set({ oldest: slot('oldest') })
    .where('one', '=', 1),
);

/** Reads where the log begins and ends. */
export async function readHead(session: Session): Promise<Head> {
  const row = (await session.all(head, {}))[0]!;
  return { logId: row.log_id, position: row.position, oldest: row.oldest };
}

/** Changes above `after` with their sizes. Throws `state/refused` when some of them are forgotten or `after` never was. */
export async function readChanges(session: Session, after: number, limit: number): Promise<Sized[]> {
  const rows = await session.all(page, { after, limit });
  if (rows[0]?.position !== after + 1) {
    const { position, oldest } = await readHead(session);
    if (after + 1 < oldest) {
      throw new Fault('state/refused', `changes after position ${after} are forgotten: the oldest held is ${oldest}`, {
        hint: 'Start again from a scan.',
      });
    }
    if (after > position) {
      throw new Fault('state/refused', `position ${after} is ahead of the log, which ends at ${position}`, {
        hint: 'The reader followed another log: start again from a scan.',
      });
    }
  }
  return rows.map((row) => ({ change: rowChange(row), size: (row.value?.length ?? 0) + 200 }));
}

const rename = statement<{ from: string; to: string }, { log_id: string }>((db, slot) =>
  db
    .updateTable('log_head')
    .set({ log_id: slot('to') })
    .where('log_id', '=', slot('from'))
    .returning('log_id'),
);

/** See `ChangeLog.renew`. */
export async function renewLog(tx: Transaction, from: string, to: string): Promise<boolean> {
  return (await tx.all(rename, { from, to })).length === 1;
}

/** See `ChangeLog.prune`. */
export async function pruneChanges(tx: Transaction, position: number): Promise<void> {
  const now = await readHead(tx);
  const last = Math.min(position, now.position);
  if (last < now.oldest) return;
  await tx.all(forget, { position: last });
  await tx.all(moveOldest, { oldest: last + 1 });
}
