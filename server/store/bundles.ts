/** Trust bundles in the database, the own trust domain's among them. */
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { decodeBundle, encodeBundle } from './bundle-text.ts';
import { insert, type Session, statement } from './statement.ts';
import type { Transaction } from './transaction.ts';

interface Row {
  trust_domain: string;
  sequence: string;
  body: string;
}

const one = statement<{ td: string }, Row>((db, slot) =>
  db.selectFrom('bundles').select(['trust_domain', 'sequence', 'body']).where('trust_domain', '=', slot('td')),
);
const all = statement<Record<string, never>, Row>((db) =>
  db.selectFrom('bundles').select(['trust_domain', 'sequence', 'body']).orderBy('trust_domain'),
);
const replace = statement<{ td: string; sequence: string; body: string }, unknown>((db, slot) =>
  db
    .updateTable('bundles')
    .set({ sequence: slot('sequence'), body: slot('body') })
    .where('trust_domain', '=', slot('td')),
);
/** See `Bundles.get`. */
export async function getBundle(session: Session, trustDomain: TrustDomain): Promise<Bundle | undefined> {
  const rows = await session.all(one, { td: trustDomain });
  return rows[0] && decodeBundle(rows[0].body);
}

/** See `Bundles.list`: by trust domain. */
export async function listBundles(session: Session): Promise<Bundle[]> {
  return (await session.all(all, {})).map((row) => decodeBundle(row.body));
}

/** See `Bundles.put`. Writing what is there already changes nothing and appends nothing. */
export async function putBundle(
  tx: Transaction,
  bundle: Bundle,
  expect: 'absent' | 'present' | 'any' | bigint,
): Promise<boolean> {
  const stored = (await tx.all(one, { td: bundle.trustDomain }))[0];
  if (expect === 'absent' && stored !== undefined) return false;
  if (expect === 'present' && stored === undefined) return false;
  if (typeof expect === 'bigint' && stored?.sequence !== expect.toString()) return false;
  const body = encodeBundle(bundle);
  if (stored?.body === body) return true;
  const sequence = bundle.sequence.toString();
  if (stored === undefined) await insert(tx, 'bundles', [{ trust_domain: bundle.trustDomain, sequence, body }]);
  else await tx.all(replace, { td: bundle.trustDomain, sequence, body });
  tx.append({ kind: 'bundle', trustDomain: bundle.trustDomain, bundle });
  return true;
}

/** The first of these trust domains that has no bundle. */
export async function unknownBundle(
  session: Session,
  trustDomains: readonly TrustDomain[],
): Promise<TrustDomain | undefined> {
  for (const td of trustDomains) if ((await session.all(one, { td })).length === 0) return td;
  return undefined;
}
