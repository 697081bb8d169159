/** spire.api.types.Entry and EntryMask <-> our Entry. */
import { Fault, quote } from '../errors.ts';
import type { Entry, EntryDraft, EntryPatch } from '../spiffe/entry.ts';
import { parseTrustDomainOrId } from '../spiffe/id.ts';
import { idFromWire, idToWire, selectorsFromWire, selectorToWire, type WireId, type WireSelector } from './id.ts';

export interface WireEntry {
  id: string;
  spiffe_id: WireId | null;
  parent_id: WireId | null;
  selectors: WireSelector[];
  x509_svid_ttl: number;
  federates_with: string[];
  admin: boolean;
  downstream: boolean;
  expires_at: string | number;
  dns_names: string[];
  revision_number: string | number;
  store_svid: boolean;
  jwt_svid_ttl: number;
  hint: string;
  created_at: string | number;
  additional_attributes?: { disable_x509_svid_prefetch: boolean; jwt_svid_include_jti: boolean } | null;
}

/** Field names of EntryMask; a null mask means all. */
export type EntryMask = Partial<Record<Exclude<keyof WireEntry, 'id'>, boolean>>;

/** The wire form; with a mask only the id and the fields set in it (an absent field is the zero value). */
export function entryToWire(entry: Entry, mask?: EntryMask | null): Partial<WireEntry> {
  if (!mask) {
    const wire: Partial<WireEntry> = {
      id: entry.id,
      spiffe_id: idToWire(entry.spiffeId),
      parent_id: idToWire(entry.parentId),
      selectors: entry.selectors.map(selectorToWire),
      x509_svid_ttl: entry.x509SvidTtl,
      federates_with: [...entry.federatesWith],
      admin: entry.admin,
      downstream: entry.downstream,
      expires_at: entry.expiresAt,
      dns_names: [...entry.dnsNames],
      revision_number: entry.revision,
      store_svid: entry.storeSvid,
      jwt_svid_ttl: entry.jwtSvidTtl,
      hint: entry.hint,
      created_at: entry.createdAt,
    };
    const attributes = attributesToWire(entry);
    if (attributes) wire.additional_attributes = attributes;
    return wire;
  }
  const full = entryToWire(entry) as unknown as Record<string, unknown>;
  const masked: Record<string, unknown> = { id: entry.id };
  for (const [field, wanted] of Object.entries(mask)) if (wanted && field in full) masked[field] = full[field];
  return masked as Partial<WireEntry>;
}

function attributesToWire(entry: Entry): WireEntry['additional_attributes'] {
  if (!entry.disableX509SvidPrefetch && !entry.jwtSvidIncludeJti) return null;
  return {
    disable_x509_svid_prefetch: entry.disableX509SvidPrefetch,
    jwt_svid_include_jti: entry.jwtSvidIncludeJti,
  };
}

/** Reads an entry of a create request (not yet checked against the trust domain). Throws `input/invalid`, `id/invalid`. */
export function draftFromWire(wire: WireEntry): EntryDraft {
  return {
    id: wire.id,
    spiffeId: idFromWire(wire.spiffe_id, 'SPIFFE ID'),
    parentId: idFromWire(wire.parent_id, 'parent ID'),
    selectors: selectorsFromWire(wire.selectors),
    x509SvidTtl: wire.x509_svid_ttl,
    jwtSvidTtl: wire.jwt_svid_ttl,
    federatesWith: wire.federates_with.map(parseTrustDomainOrId),
    admin: wire.admin,
    downstream: wire.downstream,
    expiresAt: wholeNumber(wire.expires_at, 'expiry'),
    dnsNames: wire.dns_names,
    storeSvid: wire.store_svid,
    hint: wire.hint,
    disableX509SvidPrefetch: wire.additional_attributes?.disable_x509_svid_prefetch ?? false,
    jwtSvidIncludeJti: wire.additional_attributes?.jwt_svid_include_jti ?? false,
  };
}

/** Reads an entry a server sent. Fields that the mask left out have their zero values; the parent may be absent. */
export function entryFromWire(wire: WireEntry): Omit<Entry, 'parentId'> {
  return {
    ...draftFromWire({ ...wire, parent_id: wire.parent_id ?? wire.spiffe_id }),
    revision: wholeNumber(wire.revision_number, 'revision'),
    createdAt: wholeNumber(wire.created_at, 'creation time'),
  };
}

/** The fields of an update that the mask names; a null mask means all of them. */
export function patchFromWire(wire: WireEntry, mask: EntryMask | null | undefined): EntryPatch {
  const wanted = (field: keyof EntryMask): boolean => !mask || mask[field] === true;
  return {
    ...(wanted('spiffe_id') && { spiffeId: idFromWire(wire.spiffe_id, 'SPIFFE ID') }),
    ...(wanted('parent_id') && { parentId: idFromWire(wire.parent_id, 'parent ID') }),
    ...(wanted('selectors') && { selectors: selectorsFromWire(wire.selectors) }),
    ...(wanted('x509_svid_ttl') && { x509SvidTtl: wire.x509_svid_ttl }),
    ...(wanted('jwt_svid_ttl') && { jwtSvidTtl: wire.jwt_svid_ttl }),
    ...(wanted('federates_with') && { federatesWith: wire.federates_with.map(parseTrustDomainOrId) }),
    ...(wanted('admin') && { admin: wire.admin }),
    ...(wanted('downstream') && { downstream: wire.downstream }),
    ...(wanted('expires_at') && { expiresAt: wholeNumber(wire.expires_at, 'expiry') }),
    ...(wanted('dns_names') && { dnsNames: wire.dns_names }),
    ...(wanted('store_svid') && { storeSvid: wire.store_svid }),
    ...(wanted('hint') && { hint: wire.hint }),
    ...(wanted('additional_attributes') && {
      disableX509SvidPrefetch: wire.additional_attributes?.disable_x509_svid_prefetch ?? false,
      jwtSvidIncludeJti: wire.additional_attributes?.jwt_svid_include_jti ?? false,
    }),
  };
}

/** Reads an int64 field that must be a whole, safe, non-negative number. Throws `input/invalid`. */
export function wholeNumber(value: string | number, what: string): number {
  const number = Number(value);
  if (Number.isSafeInteger(number) && number >= 0) return number;
  throw new Fault('input/invalid', `${what} ${quote(value)} is not valid: expected a whole number of at least 0`);
}
