/** What was issued, what of it was revoked, and the revocation lists of the authorities. */
import type { Migration } from './migrate.ts';

export const revocation: Migration = {
  version: 2,
  // Servers of the first schema neither record nor refuse, and read the new kinds of changes as ones of no concern.
  compatible: 1,
  definitions: (engine) => {
    const int = engine === 'sqlite' ? 'integer' : 'bigint';
    // The primary key is the table itself: no second copy, and new rows go to its end.
    const clustered = engine === 'sqlite' ? ' without rowid' : '';
    return [
      `create table issued (
        expires_at ${int} not null,
        serial text not null,
        issued_at ${int} not null,
        authority text not null,
        spiffe_id text not null,
        entry_id text not null,
        agent_id text not null,
        primary key (expires_at, serial)
      )${clustered}`,
      `create table revocations (
        kind text not null,
        value text not null,
        revoked_at ${int} not null,
        expires_at ${int} not null,
        authority text not null,
        spiffe_id text not null,
        primary key (kind, value)
      )`,
      `create table crls (
        authority text primary key not null,
        number text not null,
        expires_at ${int} not null,
        der text not null
      )`,
    ];
  },
};
