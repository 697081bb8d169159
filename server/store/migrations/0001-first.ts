/** The first schema. Definitions are the same text on both engines, but for the type of 64-bit integers. */
import type { Migration } from './migrate.ts';

export const first: Migration = {
  version: 1,
  compatible: 1,
  definitions: (engine) => {
    const int = engine === 'sqlite' ? 'integer' : 'bigint';
    return [
      `create table meta (name text primary key not null, value text not null)`,
      `create table log_head (
        one ${int} primary key not null check (one = 1),
        log_id text not null,
        position ${int} not null,
        oldest ${int} not null
      )`,
      `create table changes (
        position ${int} primary key not null,
        kind text not null,
        subject text not null,
        value text,
        before_spiffe_id text,
        before_parent_id text
      )`,
      `create table entries (
        seq ${int} primary key not null,
        id text not null,
        spiffe_id text not null,
        parent_id text not null,
        kinship ${int} not null,
        selectors text not null,
        x509_svid_ttl ${int} not null,
        jwt_svid_ttl ${int} not null,
        federates_with text not null,
        admin ${int} not null,
        downstream ${int} not null,
        expires_at ${int} not null,
        dns_names text not null,
        revision ${int} not null,
        store_svid ${int} not null,
        hint text not null,
        created_at ${int} not null,
        disable_x509_svid_prefetch ${int} not null,
        jwt_svid_include_jti ${int} not null
      )`,
      `create unique index entries_id on entries (id)`,
      `create index entries_kinship on entries (kinship)`,
      `create index entries_expiry on entries (expires_at) where expires_at > 0`,
      `create index entries_federating on entries (federates_with) where federates_with <> '[]'`,
      `create table nodes (
        seq ${int} primary key not null,
        id text not null,
        attestation_type text not null,
        serial text not null,
        expires_at ${int} not null,
        next_serial text not null,
        next_expires_at ${int} not null,
        can_reattest ${int} not null,
        selectors text not null,
        agent_version text not null
      )`,
      `create unique index nodes_id on nodes (id)`,
      `create table bundles (trust_domain text primary key not null, sequence text not null, body text not null)`,
      `create table tokens (value text primary key not null, expires_at ${int} not null, alias_entry_id text)`,
      `create index tokens_expiry on tokens (expires_at)`,
      `create table federation (
        trust_domain text primary key not null,
        bundle_endpoint_url text not null,
        profile text not null,
        endpoint_spiffe_id text
      )`,
      `create table journal (name text primary key not null, version ${int} not null, text text not null)`,
    ];
  },
};
