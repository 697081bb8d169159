/** Registration entries: who may have which SPIFFE ID, under which parent, when which selectors are found. */
import { Fault, quote } from '../errors.ts';
import { isMemberOf, isReserved, pathOf, requireWorkloadId, type SpiffeId, serverId, type TrustDomain } from './id.ts';
import { type Selector, selectorSet, selectorType } from './selector.ts';

export interface Entry {
  readonly id: string;
  readonly spiffeId: SpiffeId;
  readonly parentId: SpiffeId;
  /** Sorted and without doubles. */
  readonly selectors: readonly Selector[];
  /** Seconds; 0 means the server's default. */
  readonly x509SvidTtl: number;
  /** Seconds; 0 means the server's default. */
  readonly jwtSvidTtl: number;
  readonly federatesWith: readonly TrustDomain[];
  readonly admin: boolean;
  readonly downstream: boolean;
  /** Unix seconds; 0 means never. */
  readonly expiresAt: number;
  readonly dnsNames: readonly string[];
  readonly revision: number;
  readonly storeSvid: boolean;
  readonly hint: string;
  /** Unix seconds. */
  readonly createdAt: number;
  readonly disableX509SvidPrefetch: boolean;
  readonly jwtSvidIncludeJti: boolean;
}

/** An entry as a caller asks for it: no revision and no creation time; an empty id means "choose one". */
export type EntryDraft = Omit<Entry, 'revision' | 'createdAt'>;

/** The fields an update may change. */
export type EntryPatch = Partial<Omit<Entry, 'id' | 'revision' | 'createdAt'>>;

const idShape = /^[A-Za-z0-9._-]{1,255}$/;
const labelShape = /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
/** The longest hint, in bytes (Workload API §8). */
const longestHint = 1024;

/** Checks a draft against the rules for entries of `trustDomain` and returns it canonical. Throws `input/invalid`. */
export function checkEntry(draft: EntryDraft, trustDomain: TrustDomain): EntryDraft {
  if (draft.id !== '' && !idShape.test(draft.id)) {
    throw new Fault('input/invalid', `entry id ${quote(draft.id)} is not valid`, {
      hint: 'Use 1 to 255 characters of A-Z, a-z, 0-9, ".", "_" and "-", or leave it out.',
    });
  }
  if (!isMemberOf(draft.parentId, trustDomain)) {
    throw new Fault(
      'input/invalid',
      `parent ID ${quote(draft.parentId)} is not a member of trust domain ${quote(trustDomain)}`,
    );
  }
  if (pathOf(draft.parentId) === '') {
    throw new Fault('input/invalid', `parent ID ${quote(draft.parentId)} has an empty path`, {
      hint: `Use an agent's ID, a node alias, or ${serverId(trustDomain)} to define a node alias.`,
    });
  }
  if (isReserved(draft.spiffeId)) requireWorkloadId(draft.spiffeId, trustDomain, 'SPIFFE ID');
  if (!isMemberOf(draft.spiffeId, trustDomain) || pathOf(draft.spiffeId) === '') {
    requireWorkloadId(draft.spiffeId, trustDomain, 'SPIFFE ID');
  }
  if (draft.selectors.length === 0) {
    throw new Fault('input/invalid', 'selector list is empty: an entry without selectors would match nothing', {
      hint: 'Give at least one selector, such as unix:uid:1000.',
    });
  }
  for (const [what, value] of [
    ['X509-SVID TTL', draft.x509SvidTtl],
    ['JWT-SVID TTL', draft.jwtSvidTtl],
    ['expiry', draft.expiresAt],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new Fault(
        'input/invalid',
        `${what} ${quote(value)} is not valid: expected 0 or a positive number of seconds`,
      );
    }
  }
  for (const name of draft.dnsNames) checkDnsName(name);
  if (Buffer.byteLength(draft.hint) > longestHint) {
    throw new Fault('input/invalid', `hint ${quote(draft.hint)} is longer than ${longestHint} bytes`);
  }
  const selectors = selectorSet(draft.selectors);
  if (draft.storeSvid) {
    if (new Set(selectors.map(selectorType)).size > 1) {
      throw new Fault('input/invalid', 'an entry whose SVID is stored must have selectors of one type only');
    }
    if (draft.disableX509SvidPrefetch) {
      throw new Fault('input/invalid', 'an entry whose SVID is stored cannot disable the prefetch of X509-SVIDs');
    }
  }
  return { ...draft, selectors, federatesWith: [...new Set(draft.federatesWith)] };
}

/** Checks a DNS name for a certificate; `*` stands alone as the leftmost label only. Throws `input/invalid`. */
export function checkDnsName(name: string): string {
  const refuse = (why: string): never => {
    throw new Fault('input/invalid', `DNS name ${quote(name)} is not valid: ${why}`);
  };
  if (name === '') return refuse('it is empty');
  if (name.length > 255) return refuse('it is longer than 255 characters');
  const labels = name.split('.');
  if (labels[0] === '*') {
    if (labels.length < 2) return refuse('a wildcard needs a domain');
    labels.shift();
  }
  for (const label of labels) if (!labelShape.test(label)) return refuse(`label ${quote(label)} is malformed`);
  return name;
}
