/**
 * Join tokens in the database, each as its hash: whoever reads a copy of it cannot attest with what is there. A token is
 * expired when its time is before now, to the second.
 */
import { createHash } from 'node:crypto';
import { Fault, quote } from '../../src/errors.ts';
import type { EntryDraft } from '../../src/spiffe/entry.ts';
import { createEntries, deleteEntries } from './entries.ts';
import { insert, type Session, statement } from './statement.ts';
import type { JoinToken, Stamp } from './store.ts';
import type { Transaction } from './transaction.ts';

interface Row {
  /** As `storedAs` gives it. */
  value: string;
  expires_at: number;
  alias_entry_id: string | null;
}

const byValue = statement<{ value: string }, Row>((db, slot) =>
  db.selectFrom('tokens').select(['value', 'expires_at', 'alias_entry_id']).where('value', '=', slot('value')),
);
const remove = statement<{ value: string }, { value: string }>((db, slot) =>
  db.deleteFrom('tokens').where('value', '=', slot('value')).returning('value'),
);
const expired = statement<{ now: number }, Row>((db, slot) =>
  db
    .selectFrom('tokens')
    .select(['value', 'expires_at', 'alias_entry_id'])
    .where('expires_at', '<', slot('now'))
    .orderBy('expires_at'),
);

/** What stands in the table for a token. Its colon is in no token, so that what stands there cannot be presented as one. */
function storedAs(value: string): string {
  return `sha256:${createHash('sha256').update(value).digest('hex')}`;
}

/**
 * See `Tokens.create`. When an entry like the alias is there already (of a node that came with a token of this value), it
 * serves; it is not the token's and does not go with it.
 */
export async function createToken(
  tx: Transaction,
  token: JoinToken,
  alias?: { draft: EntryDraft; stamp: Stamp },
): Promise<'created' | 'taken'> {
  const value = storedAs(token.value);
  if ((await tx.all(byValue, { value })).length > 0) return 'taken';
  let aliasId: string | null = null;
  if (alias !== undefined) {
    const made = (await createEntries(tx, [alias]))[0]!;
    if ('taken' in made)
      throw new Fault('thing/exists', `entry id ${quote(made.taken)} of the token's node alias is taken`);
    if ('unknownBundle' in made) {
      throw new Fault(
        'thing/missing',
        `the token's node alias federates with ${quote(made.unknownBundle)}, which has no bundle`,
      );
    }
    if ('created' in made) aliasId = made.created.id;
  }
  await insert(tx, 'tokens', [{ value, expires_at: token.expiresAt, alias_entry_id: aliasId }]);
  return 'created';
}

/** See `Tokens.get`. */
export async function getToken(session: Session, value: string): Promise<JoinToken | undefined> {
  const row = (await session.all(byValue, { value: storedAs(value) }))[0];
  return row && { value, expiresAt: row.expires_at };
}

/** See `Tokens.prune`. */
export async function pruneTokens(tx: Transaction, now: number): Promise<number> {
  const rows = await tx.all(expired, { now });
  for (const row of rows) {
    await tx.all(remove, { value: row.value });
    if (row.alias_entry_id !== null) await deleteEntries(tx, [row.alias_entry_id]);
  }
  return rows.length;
}

/** Takes a token for one attestation. An expired one stays for `pruneTokens`, which takes its alias entry too. */
export async function consumeToken(
  tx: Transaction,
  value: string,
  now: number,
): Promise<'taken' | 'token-missing' | 'token-expired'> {
  const token = await getToken(tx, value);
  if (token === undefined) return 'token-missing';
  if (token.expiresAt < now) return 'token-expired';
  // The count of deleted rows decides, not the read before it.
  return (await tx.all(remove, { value: storedAs(value) })).length === 1 ? 'taken' : 'token-missing';
}
