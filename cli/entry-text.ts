/** Entries for people. */
import type { Message } from './caller.ts';
import { printDeadline, printMoment, printSeconds } from './duration.ts';
import type { Ports } from './ports.ts';
import { block, table } from './table.ts';

export const wireId = (id: { trust_domain: string; path: string } | null | undefined): string =>
  id ? `spiffe://${id.trust_domain}${id.path}` : '';
export const selectorTexts = (selectors: readonly { type: string; value: string }[] | undefined): string[] =>
  (selectors ?? []).map(({ type, value }) => `${type}:${value}`);

const ttl = (seconds: number): string => (seconds === 0 ? 'default' : printSeconds(seconds));

/** By SPIFFE ID, then parent, then id. */
export function sortEntries(entries: readonly Message[]): Message[] {
  const key = (entry: Message): string => [wireId(entry.spiffe_id), wireId(entry.parent_id), entry.id].join('\n');
  return [...entries].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** Every field that says something, a line each. */
export function entryBlock(entry: Message, ports: Ports): string {
  const flag = (set: boolean | undefined): string | undefined => (set ? 'yes' : undefined);
  return block(ports, [
    ['Entry ID', entry.id || '(none)'],
    ['SPIFFE ID', wireId(entry.spiffe_id)],
    ['Parent ID', wireId(entry.parent_id)],
    ['Selectors', selectorTexts(entry.selectors)],
    ['X509-SVID TTL', ttl(entry.x509_svid_ttl)],
    ['JWT-SVID TTL', ttl(entry.jwt_svid_ttl)],
    ['Revision', String(entry.revision_number ?? 0)],
    ['Created', Number(entry.created_at) > 0 ? printMoment(Number(entry.created_at)) : undefined],
    ['Expires', Number(entry.expires_at) > 0 ? printDeadline(Number(entry.expires_at), ports.clock.now()) : undefined],
    ['DNS names', entry.dns_names],
    ['Federates with', entry.federates_with],
    ['Hint', entry.hint],
    ['Admin', flag(entry.admin)],
    ['Downstream', flag(entry.downstream)],
    ['Stored SVID', flag(entry.store_svid)],
    ['No prefetch', flag(entry.additional_attributes?.disable_x509_svid_prefetch)],
    ['JWT-SVID jti', flag(entry.additional_attributes?.jwt_svid_include_jti)],
  ]);
}

/** One line an entry. */
export function entryTable(entries: readonly Message[], ports: Ports): string {
  return table(
    ports,
    ['ENTRY ID', 'SPIFFE ID', 'PARENT ID', 'SELECTORS', 'NOTES'],
    entries.map((entry) => [
      entry.id,
      wireId(entry.spiffe_id),
      wireId(entry.parent_id),
      selectorTexts(entry.selectors).join(' '),
      [
        ...(entry.x509_svid_ttl > 0 ? [`x509-ttl=${ttl(entry.x509_svid_ttl)}`] : []),
        ...(entry.jwt_svid_ttl > 0 ? [`jwt-ttl=${ttl(entry.jwt_svid_ttl)}`] : []),
        ...(entry.admin ? ['admin'] : []),
        ...(entry.downstream ? ['downstream'] : []),
        ...(entry.store_svid ? ['stored'] : []),
        ...(entry.hint ? [`hint=${entry.hint}`] : []),
        ...(entry.federates_with?.length > 0 ? [`federates=${entry.federates_with.join(',')}`] : []),
      ].join(' '),
    ]),
  );
}
