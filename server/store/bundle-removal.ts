/** Deleting a bundle, and what becomes of the entries that federate with its trust domain. */
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { unknownBundle } from './bundles.ts';
import { entriesFederatingWith, removeEntry, rewrite } from './entries.ts';
import { statement } from './statement.ts';
import type { Transaction } from './transaction.ts';

const remove = statement<{ td: string }, unknown>((db, slot) =>
  db.deleteFrom('bundles').where('trust_domain', '=', slot('td')),
);

/** See `Bundles.delete`. */
export async function deleteBundle(
  tx: Transaction,
  trustDomain: TrustDomain,
  mode: 'restrict' | 'delete' | 'dissociate',
): Promise<'deleted' | 'missing' | { linked: number }> {
  if ((await unknownBundle(tx, [trustDomain])) !== undefined) return 'missing';
  const linked = await entriesFederatingWith(tx, trustDomain);
  if (mode === 'restrict' && linked.length > 0) return { linked: linked.length };
  for (const entry of linked) {
    if (mode === 'delete') await removeEntry(tx, entry);
    else await rewrite(tx, entry, { federatesWith: entry.federatesWith.filter((td) => td !== trustDomain) });
  }
  await tx.all(remove, { td: trustDomain });
  tx.append({ kind: 'bundle', trustDomain, bundle: undefined });
  return 'deleted';
}
