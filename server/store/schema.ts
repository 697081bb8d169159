/**
 * The tables, as kysely sees them. Statements name their columns and never say "*": a column that a newer version adds
 * must not change what a statement gives, prepared statements of PostgreSQL least of all. Both engines use the same shapes: text, integers and nothing else. Flags are 0 or 1,
 * lists are canonical JSON text, 64-bit sequence numbers are decimal text.
 */
export interface Tables {
  meta: { name: string; value: string };
  /** One row. `oldest` is the lowest position still held: `position` + 1 when nothing is. */
  log_head: { one: number; log_id: string; position: number; oldest: number };
  changes: {
    position: number;
    kind: string;
    /** The entry's id, the node's SPIFFE ID or the trust domain. */
    subject: string;
    /** The whole value as JSON; null when it was deleted. */
    value: string | null;
    before_spiffe_id: string | null;
    before_parent_id: string | null;
  };
  entries: EntryRow;
  nodes: NodeRow;
  bundles: { trust_domain: string; sequence: string; body: string };
  tokens: { value: string; expires_at: number; alias_entry_id: string | null };
  federation: { trust_domain: string; bundle_endpoint_url: string; profile: string; endpoint_spiffe_id: string | null };
  journal: { name: string; version: number; text: string };
  issued: IssuedRow;
  revocations: RevocationRow;
  crls: { authority: string; number: string; expires_at: number; der: string };
  schema_version: { version: number; compatible: number };
}

export interface EntryRow {
  /** The log position of the entry's creation: unique, ascending, never reused. */
  seq: number;
  id: string;
  spiffe_id: string;
  parent_id: string;
  /**
   * 24 bits of a hash of the parent above 24 bits of a hash of SPIFFE ID and selector set. One small index so finds both
   * the children of a parent, as a range, and entries alike; what it finds is then compared. An index of its own for
   * each costs half of the speed of creation at 100,000 entries, in pages written.
   */
  kinship: number;
  selectors: string;
  x509_svid_ttl: number;
  jwt_svid_ttl: number;
  federates_with: string;
  admin: number;
  downstream: number;
  expires_at: number;
  dns_names: string;
  revision: number;
  store_svid: number;
  hint: string;
  created_at: number;
  disable_x509_svid_prefetch: number;
  jwt_svid_include_jti: number;
}

/** Clustered by expiry: rows are put in and pruned at the two ends, and nothing else is indexed, since finding is rare. */
export interface IssuedRow {
  expires_at: number;
  serial: string;
  issued_at: number;
  authority: string;
  spiffe_id: string;
  entry_id: string;
  agent_id: string;
}

export interface RevocationRow {
  kind: string;
  value: string;
  revoked_at: number;
  expires_at: number;
  authority: string;
  spiffe_id: string;
}

export interface NodeRow {
  /** The log position of the node's first attestation. */
  seq: number;
  id: string;
  attestation_type: string;
  serial: string;
  expires_at: number;
  next_serial: string;
  next_expires_at: number;
  can_reattest: number;
  selectors: string;
  agent_version: string;
}

export const entryColumns = [
  'seq',
  'id',
  'spiffe_id',
  'parent_id',
  'kinship',
  'selectors',
  'x509_svid_ttl',
  'jwt_svid_ttl',
  'federates_with',
  'admin',
  'downstream',
  'expires_at',
  'dns_names',
  'revision',
  'store_svid',
  'hint',
  'created_at',
  'disable_x509_svid_prefetch',
  'jwt_svid_include_jti',
] as const satisfies readonly (keyof EntryRow)[];

export const nodeColumns = [
  'seq',
  'id',
  'attestation_type',
  'serial',
  'expires_at',
  'next_serial',
  'next_expires_at',
  'can_reattest',
  'selectors',
  'agent_version',
] as const satisfies readonly (keyof NodeRow)[];
