/**
 * The ports to what the server keeps. Each concern has its own narrow port; one implementation (sql.ts) serves SQLite and
 * PostgreSQL, and test/suites/store.ts holds every implementation to the same behaviour.
 *
 * Every write appends its changes to the log in the same transaction, and is durable when its promise resolves. Log
 * positions are gap-free and ascending in commit order: a reader that has seen position N has seen everything up to N.
 * Values cross a thread boundary: they are plain data.
 */
import type { Fault } from '../../src/errors.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { Entry, EntryDraft, EntryPatch } from '../../src/spiffe/entry.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import type { Selector } from '../../src/spiffe/selector.ts';

export interface Store {
  readonly entries: Entries;
  readonly nodes: Nodes;
  readonly bundles: Bundles;
  readonly tokens: Tokens;
  readonly federation: Federation;
  readonly journal: Journal;
  readonly revocations: Revocations;
  readonly log: ChangeLog;
  /** The schema's version found at opening, 0 for an empty database, and the one it has now. */
  readonly schema: { readonly before: number; readonly after: number };
  /** Takes the database for `trustDomain`, or refuses with `data/foreign` when it belongs to another one. */
  claim(trustDomain: TrustDomain): Promise<void>;
  /**
   * For readiness: resolves when the database can be read, may be written, and no write has failed lately for reasons of
   * the database's own. Rejects with the fault that says what is wrong.
   */
  ping(): Promise<void>;
  close(): Promise<void>;
}

/** `seq` orders entries by creation and is never reused: it is the page token. */
export interface StoredEntry extends Entry {
  readonly seq: number;
}

/** What a draft without an id and a time gets from outside the store. */
export interface Stamp {
  /** The id to use when the draft's is empty. */
  id: string;
  /** Unix seconds. */
  now: number;
}

export type Created =
  | { readonly created: StoredEntry }
  /** An entry with the same SPIFFE ID, parent and selector set exists. */
  | { readonly similar: StoredEntry }
  /** The given id is taken. */
  | { readonly taken: string }
  /** `federatesWith` names a trust domain without a bundle. */
  | { readonly unknownBundle: TrustDomain };

export interface Entries {
  /** One transaction for all; the outcomes are in order. Drafts are valid and canonical (src/spiffe/entry.ts). */
  create(drafts: readonly { draft: EntryDraft; stamp: Stamp }[]): Promise<readonly Created[]>;
  /** Sets the given fields and adds one to the revision, whatever the patch holds. One transaction. */
  update(
    patches: readonly { id: string; patch: EntryPatch }[],
  ): Promise<
    readonly (
      | { readonly updated: StoredEntry }
      | { readonly missing: true }
      | { readonly unknownBundle: TrustDomain }
    )[]
  >;
  /** One transaction; the deleted entries, or undefined where there was none. */
  delete(ids: readonly string[]): Promise<readonly (StoredEntry | undefined)[]>;
  get(id: string): Promise<StoredEntry | undefined>;
  /** Entries with seq above `after`, ascending: to fill a memory at start. */
  scan(after: number, limit: number): Promise<readonly StoredEntry[]>;
  /** Deletes at most `limit` entries whose expiry is set and before `now` (Unix seconds); how many. */
  prune(now: number, limit: number): Promise<number>;
}

export interface Node {
  readonly id: SpiffeId;
  readonly attestationType: string;
  /** Decimal serial of the current agent SVID; empty when banned. */
  readonly serial: string;
  /** Unix seconds. */
  readonly expiresAt: number;
  /** The renewed SVID not used yet; empty when none. */
  readonly nextSerial: string;
  readonly nextExpiresAt: number;
  readonly canReattest: boolean;
  readonly selectors: readonly Selector[];
  readonly agentVersion: string;
}

export interface StoredNode extends Node {
  readonly seq: number;
}

export interface Nodes {
  /**
   * Records a freshly attested node, replacing what was known of it, unless it is banned. With `token` the join token is
   * consumed in the same transaction; exactly one of many callers with one token wins.
   */
  attest(
    node: Node,
    token?: { value: string; now: number },
  ): Promise<'attested' | 'banned' | 'token-missing' | 'token-expired'>;
  /** Stores the renewed serial beside the current one. False when the node is gone or banned. */
  renew(id: SpiffeId, nextSerial: string, nextExpiresAt: number): Promise<boolean>;
  /** Makes the next serial the current one, if it still is `serial`. True too when `serial` is the current one already. */
  activate(id: SpiffeId, serial: string): Promise<boolean>;
  /** Clears both serials; the record stays. False when there is no such node. */
  ban(id: SpiffeId): Promise<boolean>;
  /**
   * Evicts: removes the node and its selectors, and for one attested by a join token, which cannot come back, every entry
   * whose parent it is. False when there is no such node.
   */
  delete(id: SpiffeId): Promise<boolean>;
  setVersion(id: SpiffeId, agentVersion: string): Promise<boolean>;
  get(id: SpiffeId): Promise<StoredNode | undefined>;
  scan(after: number, limit: number): Promise<readonly StoredNode[]>;
}

export interface Bundles {
  get(trustDomain: TrustDomain): Promise<Bundle | undefined>;
  list(): Promise<readonly Bundle[]>;
  /**
   * Writes a bundle if the stored one is as expected: `absent`, `present`, `any`, or a sequence number for
   * compare-and-swap. The bundle is stored as given, its sequence included. False when the expectation failed. Writing
   * what is stored already gives true and appends nothing.
   */
  put(bundle: Bundle, expect: 'absent' | 'present' | 'any' | bigint): Promise<boolean>;
  /**
   * Deletes a foreign bundle. Linked entries: `restrict` refuses, `delete` deletes them too, `dissociate` unlinks them
   * (their revision rises).
   */
  delete(
    trustDomain: TrustDomain,
    mode: 'restrict' | 'delete' | 'dissociate',
  ): Promise<'deleted' | 'missing' | { readonly linked: number }>;
}

export interface JoinToken {
  readonly value: string;
  /** Unix seconds. */
  readonly expiresAt: number;
}

export interface Tokens {
  /** Stores a token and, in the same transaction, the node alias entry that goes with it. `taken` when the value exists. */
  create(token: JoinToken, alias?: { draft: EntryDraft; stamp: Stamp }): Promise<'created' | 'taken'>;
  get(value: string): Promise<JoinToken | undefined>;
  /** Deletes tokens whose time is before `now` (Unix seconds), with the alias entries made for them; how many tokens. */
  prune(now: number): Promise<number>;
}

export interface FederationRelationship {
  readonly trustDomain: TrustDomain;
  readonly bundleEndpointUrl: string;
  readonly profile:
    | { readonly kind: 'https_web' }
    | { readonly kind: 'https_spiffe'; readonly endpointSpiffeId: SpiffeId };
}

export interface Federation {
  /** Creates; false when one exists. A bundle given is stored too (upsert), in the same transaction. */
  create(relationship: FederationRelationship, bundle?: Bundle): Promise<boolean>;
  update(relationship: FederationRelationship, bundle?: Bundle): Promise<boolean>;
  delete(trustDomain: TrustDomain): Promise<boolean>;
  get(trustDomain: TrustDomain): Promise<FederationRelationship | undefined>;
  list(): Promise<readonly FederationRelationship[]>;
}

/** Small named documents with compare-and-swap: what authorities there are and were. */
export interface Journal {
  get(name: string): Promise<{ readonly version: number; readonly text: string } | undefined>;
  /** The documents whose names begin with `prefix`: letters, digits and `@`. */
  list(prefix: string): Promise<readonly { readonly name: string; readonly version: number; readonly text: string }[]>;
  /** Writes if the stored version is `expect` (0: no document yet). False when another writer came first. */
  put(name: string, text: string, expect: number): Promise<boolean>;
}

/** An X.509-SVID that was issued. Times are Unix milliseconds. */
export interface Issuance {
  /** Decimal. */
  readonly serial: string;
  readonly authority: string;
  readonly spiffeId: SpiffeId;
  /** Empty for an agent's own SVID and a minted one. */
  readonly entryId: string;
  /** Empty for a minted one. */
  readonly agentId: SpiffeId | '';
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/**
 * What is revoked. `serial`: one X.509-SVID. `jti`: one JWT-SVID. `tokens`: the JWT-SVIDs of a SPIFFE ID issued up to
 * then. `subject`, `entry`, `agent`: that everything issued for it up to then was revoked, which each server does once
 * more with what it had not recorded yet.
 */
export type RevocationKind = 'serial' | 'jti' | 'tokens' | 'subject' | 'entry' | 'agent';

export interface Revocation {
  readonly kind: RevocationKind;
  readonly value: string;
  /** Unix milliseconds. */
  readonly revokedAt: number;
  /** Unix milliseconds: everything it concerns has expired by then, and it is forgotten. */
  readonly expiresAt: number;
  /** Of a serial: the authority that issued it; empty where that is not known. */
  readonly authority: string;
  /** Of a serial, where known. */
  readonly spiffeId: string;
}

export interface Revoked {
  readonly revocation: Revocation;
  /** It was revoked before; then the revocation is the earlier one. */
  readonly already: boolean;
}

/** The revocation list of an authority. */
export interface StoredCrl {
  readonly authority: string;
  /** Decimal. */
  readonly number: string;
  /** Unix milliseconds. */
  readonly expiresAt: number;
  /** Base64. */
  readonly der: string;
}

export interface Revocations {
  /** Records issued SVIDs, in one write and without a change of the log. */
  record(issued: readonly Issuance[]): Promise<void>;
  /** The record of one unexpired SVID. @param now Unix milliseconds */
  find(serial: string, now: number): Promise<Issuance | undefined>;
  /** Revokes in one transaction. What is revoked already stays as it is, but for `tokens`, whose time moves on. */
  add(revocations: readonly Revocation[]): Promise<readonly Revoked[]>;
  /** Revokes every recorded and unexpired SVID issued for `value` up to `revokedAt`. */
  addIssued(of: 'subject' | 'entry' | 'agent', value: string, revokedAt: number): Promise<readonly Revoked[]>;
  list(): Promise<readonly Revocation[]>;
  /** Writes a list if its number is above the stored one's; false when it is not. */
  putCrl(crl: StoredCrl): Promise<boolean>;
  listCrls(): Promise<readonly StoredCrl[]>;
  /** Forgets records, revocations and lists that ended before `now` (Unix milliseconds), at most `limit` of each; how many. */
  prune(now: number, limit: number): Promise<number>;
}

/** One change. Values are whole, so that a follower needs no further read. */
export type Change = { readonly position: number } & (
  | {
      readonly kind: 'entry';
      readonly id: string;
      /** Undefined when the entry was deleted. */
      readonly entry: StoredEntry | undefined;
      /** What the entry was before: whose authorisation may shrink. Undefined when it is new. */
      readonly before: { readonly spiffeId: SpiffeId; readonly parentId: SpiffeId } | undefined;
    }
  | {
      readonly kind: 'node';
      readonly id: SpiffeId;
      readonly node: StoredNode | undefined;
      /** The node was there before with the same selectors: it may hold what it might, whatever else is new. */
      readonly keepsRights: boolean;
    }
  | { readonly kind: 'bundle'; readonly trustDomain: TrustDomain; readonly bundle: Bundle | undefined }
  | { readonly kind: 'federation'; readonly trustDomain: TrustDomain }
  /** Undefined: forgotten. */
  | { readonly kind: 'revocation'; readonly key: string; readonly revocation: Revocation | undefined }
  | { readonly kind: 'crl'; readonly authority: string; readonly crl: StoredCrl | undefined }
);

export interface ChangeLog {
  /** The log's identity, made with the database: positions of different logs do not compare. */
  readonly id: string;
  /** The newest committed position; 0 in a new database. */
  position(): Promise<number>;
  /** The oldest position still held; a reader behind it must start from a scan. */
  oldest(): Promise<number>;
  /**
   * Changes above `after`, ascending, at most `limit`. Recent ones come from memory. Rejects with `state/refused` when
   * some of them are forgotten, or when `after` is ahead of the log: a reader never passes a gap unknowingly.
   */
  read(after: number, limit: number): Promise<readonly Change[]>;
  /** Told (with the newest known position) after each commit that changed something; the returned function ends it. */
  onAppend(told: (position: number) => void): () => void;
  /** Forgets changes at or below `position`. */
  prune(position: number): Promise<void>;
  /**
   * Gives the log a new identity, so that nobody goes on from a position of the old one: after the database was restored
   * from a backup. False when somebody else did so first. Open stores keep the old identity until they are opened anew.
   */
  renew(id: string): Promise<boolean>;
  /**
   * Told once when the log is no longer the one that was opened: it lost changes (a restored backup, a standby that was
   * behind) or was given a new identity. What was read from it is of no use then. The returned function ends it.
   */
  onBroken(told: (fault: Fault) => void): () => void;
}
