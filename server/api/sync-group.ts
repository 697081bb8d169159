/** A group of changes cut into messages of mutual.server.v1.Sync, each well under 1 MB whatever it holds. */
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { EntryDraft } from '../../src/spiffe/entry.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { bundleToWire } from '../../src/wire/bundle.ts';
import { entryToWire } from '../../src/wire/entry.ts';
import type { StoredEntry, StoredNode } from '../store/store.ts';

/** What an agent is told of one moment. */
export interface Group {
  /** The position of the log it stands for. */
  readonly position: number;
  /** Whether it is everything, not only what changed. */
  readonly snapshot: boolean;
  readonly entries: readonly StoredEntry[];
  readonly removedEntryIds: readonly string[];
  readonly bundles: readonly Bundle[];
  readonly removedTrustDomains: readonly TrustDomain[];
  /** All that is revoked, where the group tells of it. */
  readonly revocations?: Revocations | undefined;
}

export interface Revocations {
  /** DER. */
  readonly crls: readonly Buffer[];
  /** mutual.server.v1.DeniedToken. */
  readonly deniedTokens: readonly object[];
}

const chunkBytes = 512 * 1024;
/** A jti or a SPIFFE ID at its longest, with the times. */
const deniedSize = 2_100;

interface Parts {
  entries: object[];
  removed_entry_ids: string[];
  bundles: object[];
  removed_trust_domains: string[];
  crls: Buffer[];
  denied_tokens: object[];
}

const emptyParts = (): Parts => ({
  entries: [],
  removed_entry_ids: [],
  bundles: [],
  removed_trust_domains: [],
  crls: [],
  denied_tokens: [],
});

/**
 * The messages of a group, in order; only the last one is `complete`.
 * @param answer the question that the group answers; 0 for none
 */
export function* groupMessages(group: Group, logId: string, answer: number): Iterable<object> {
  const { position, snapshot } = group;
  const head = { position, log_id: logId, snapshot, revocations: group.revocations !== undefined };
  let parts = emptyParts();
  let bytes = 0;
  for (const [size, put] of pieces(group)) {
    if (bytes > 0 && bytes + size > chunkBytes) {
      yield { ...head, ...parts, complete: false };
      parts = emptyParts();
      bytes = 0;
    }
    put(parts);
    bytes += size;
  }
  yield { ...head, ...parts, complete: true, answer };
}

function* pieces(group: Group): Iterable<[size: number, put: (parts: Parts) => void]> {
  for (const entry of group.entries) yield [entrySize(entry), (parts) => parts.entries.push(entryToWire(entry))];
  for (const id of group.removedEntryIds) yield [8 + id.length, (parts) => parts.removed_entry_ids.push(id)];
  for (const bundle of group.bundles) yield [bundleSize(bundle), (parts) => parts.bundles.push(bundleToWire(bundle))];
  for (const name of group.removedTrustDomains)
    yield [8 + name.length, (parts) => parts.removed_trust_domains.push(name)];
  for (const crl of group.revocations?.crls ?? []) yield [8 + crl.length, (parts) => parts.crls.push(crl)];
  for (const token of group.revocations?.deniedTokens ?? [])
    yield [deniedSize, (parts) => parts.denied_tokens.push(token)];
}

/** A bound on the encoded size: every text at its worst, and room for tags and numbers. */
export function entrySize(entry: EntryDraft): number {
  let size = 200 + 2 * (entry.spiffeId.length + entry.parentId.length) + 3 * entry.hint.length;
  for (const text of [...entry.selectors, ...entry.dnsNames, ...entry.federatesWith]) size += 16 + 3 * text.length;
  return size;
}

/** The same of a bundle. */
export function bundleSize(bundle: Bundle): number {
  let size = 300;
  for (const { certificate } of bundle.x509Authorities) size += 16 + certificate.length;
  for (const key of [...bundle.jwtAuthorities, ...bundle.witAuthorities])
    size += 32 + key.publicKey.length + 3 * key.keyId.length;
  return size;
}

/** The same of a node as operators list it. */
export function nodeSize(node: StoredNode): number {
  let size = 200 + 2 * node.id.length + 3 * node.agentVersion.length;
  for (const selector of node.selectors) size += 16 + 3 * selector.length;
  return size;
}
