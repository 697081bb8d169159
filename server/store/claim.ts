/** Whose database it is. */
import { Fault, quote } from '../../src/errors.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { insert, type Session, statement } from './statement.ts';
import type { Transaction } from './transaction.ts';

const byName = statement<{ name: string }, { value: string }>((db, slot) =>
  db.selectFrom('meta').select('value').where('name', '=', slot('name')),
);

/** See `Store.claim`. */
export async function claim(tx: Transaction, trustDomain: TrustDomain): Promise<void> {
  const owner = await ownerOf(tx);
  if (owner === undefined) return await insert(tx, 'meta', [{ name: 'trust_domain', value: trustDomain }]);
  if (owner !== trustDomain) {
    throw new Fault('data/foreign', `the database belongs to trust domain ${quote(owner)}, not ${quote(trustDomain)}`, {
      hint: 'Start with the trust domain the database was made for, or give another database.',
    });
  }
}

/** The trust domain that the database was taken for, if any. */
export async function ownerOf(session: Session): Promise<string | undefined> {
  return (await session.all(byName, { name: 'trust_domain' }))[0]?.value;
}

/** A trivial read. */
export async function ping(session: Session): Promise<void> {
  await session.all(byName, { name: 'trust_domain' });
}
