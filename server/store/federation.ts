/** Federation relationships in the database. */
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { putBundle } from './bundles.ts';
import type { Tables } from './schema.ts';
import { insert, type Session, statement } from './statement.ts';
import type { FederationRelationship } from './store.ts';
import type { Transaction } from './transaction.ts';

type Row = Tables['federation'];

const columns = ['trust_domain', 'bundle_endpoint_url', 'profile', 'endpoint_spiffe_id'] as const;

const one = statement<{ td: string }, Row>((db, slot) =>
  db.selectFrom('federation').select(columns).where('trust_domain', '=', slot('td')),
);
const all = statement<Record<string, never>, Row>((db) =>
  db.selectFrom('federation').select(columns).orderBy('trust_domain'),
);
const replace = statement<{ [K in keyof Row]: Row[K] }, unknown>((db, slot) =>
  db
    .updateTable('federation')
    .set({
      bundle_endpoint_url: slot('bundle_endpoint_url'),
      profile: slot('profile'),
      endpoint_spiffe_id: slot('endpoint_spiffe_id'),
    })
    .where('trust_domain', '=', slot('trust_domain')),
);
const remove = statement<{ td: string }, { trust_domain: string }>((db, slot) =>
  db.deleteFrom('federation').where('trust_domain', '=', slot('td')).returning('trust_domain'),
);

/** See `Federation.create`. */
export async function createFederation(
  tx: Transaction,
  relationship: FederationRelationship,
  bundle?: Bundle,
): Promise<boolean> {
  if ((await tx.all(one, { td: relationship.trustDomain })).length > 0) return false;
  await insert(tx, 'federation', [toRow(relationship)]);
  await finish(tx, relationship, bundle);
  return true;
}

/** See `Federation.update`. */
export async function updateFederation(
  tx: Transaction,
  relationship: FederationRelationship,
  bundle?: Bundle,
): Promise<boolean> {
  if ((await tx.all(one, { td: relationship.trustDomain })).length === 0) return false;
  await tx.all(replace, toRow(relationship));
  await finish(tx, relationship, bundle);
  return true;
}

/** See `Federation.delete`. The bundle stays. */
export async function deleteFederation(tx: Transaction, trustDomain: TrustDomain): Promise<boolean> {
  if ((await tx.all(remove, { td: trustDomain })).length === 0) return false;
  tx.append({ kind: 'federation', trustDomain });
  return true;
}

/** See `Federation.get`. */
export async function getFederation(
  session: Session,
  trustDomain: TrustDomain,
): Promise<FederationRelationship | undefined> {
  const rows = await session.all(one, { td: trustDomain });
  return rows[0] && fromRow(rows[0]);
}

/** See `Federation.list`: by trust domain. */
export async function listFederation(session: Session): Promise<FederationRelationship[]> {
  return (await session.all(all, {})).map(fromRow);
}

async function finish(tx: Transaction, { trustDomain }: FederationRelationship, bundle?: Bundle): Promise<void> {
  tx.append({ kind: 'federation', trustDomain });
  if (bundle !== undefined) await putBundle(tx, bundle, 'any');
}

function toRow({ trustDomain, bundleEndpointUrl, profile }: FederationRelationship): Row {
  return {
    trust_domain: trustDomain,
    bundle_endpoint_url: bundleEndpointUrl,
    profile: profile.kind,
    endpoint_spiffe_id: profile.kind === 'https_spiffe' ? profile.endpointSpiffeId : null,
  };
}

function fromRow(row: Row): FederationRelationship {
  return {
    trustDomain: row.trust_domain as TrustDomain,
    bundleEndpointUrl: row.bundle_endpoint_url,
    profile:
      row.profile === 'https_spiffe'
        ? { kind: 'https_spiffe', endpointSpiffeId: row.endpoint_spiffe_id as SpiffeId }
        : { kind: 'https_web' },
  };
}
