/** Named documents with compare-and-swap in the database. */
import { insert, type Session, statement } from './statement.ts';
import type { Transaction } from './transaction.ts';

const byName = statement<{ name: string }, { version: number; text: string }>((db, slot) =>
  db.selectFrom('journal').select(['version', 'text']).where('name', '=', slot('name')),
);
const below = statement<{ pattern: string }, { name: string; version: number; text: string }>((db, slot) =>
  db.selectFrom('journal').select(['name', 'version', 'text']).where('name', 'like', slot('pattern')).orderBy('name'),
);
const replace = statement<{ name: string; text: string; version: number }, unknown>((db, slot) =>
  db
    .updateTable('journal')
    .set({ text: slot('text'), version: slot('version') })
    .where('name', '=', slot('name')),
);

/** See `Journal.get`. */
export async function getDocument(
  session: Session,
  name: string,
): Promise<{ version: number; text: string } | undefined> {
  const row = (await session.all(byName, { name }))[0];
  return row && { version: row.version, text: row.text };
}

/** See `Journal.list`. */
export async function listDocuments(
  session: Session,
  prefix: string,
): Promise<{ name: string; version: number; text: string }[]> {
  return (await session.all(below, { pattern: `${prefix}%` })).map(({ name, version, text }) => ({
    name,
    version,
    text,
  }));
}

/** See `Journal.put`. */
export async function putDocument(tx: Transaction, name: string, text: string, expect: number): Promise<boolean> {
  const version = (await getDocument(tx, name))?.version ?? 0;
  if (version !== expect) return false;
  if (version === 0) await insert(tx, 'journal', [{ name, version: 1, text }]);
  else await tx.all(replace, { name, text, version: version + 1 });
  return true;
}
