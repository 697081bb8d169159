/** Changes as rows of the log: text that keeps whole values. */
import { decodeBundle, encodeBundle } from './bundle-text.ts';
import type { Tables } from './schema.ts';
import type { Change } from './store.ts';

/** The row of a change. */
export function changeRow(change: Change): Tables['changes'] {
  const row = { position: change.position, kind: change.kind, before_spiffe_id: null, before_parent_id: null };
  switch (change.kind) {
    case 'entry':
      return {
        ...row,
        subject: change.id,
        value: change.entry === undefined ? null : JSON.stringify(change.entry),
        before_spiffe_id: change.before?.spiffeId ?? null,
        before_parent_id: change.before?.parentId ?? null,
      };
    case 'node':
      return {
        ...row,
        subject: change.id,
        value: change.node === undefined ? null : JSON.stringify(change.node),
        // Programs of before do not set it, and do not ask.
        before_spiffe_id: change.keepsRights ? change.id : null,
      };
    case 'bundle':
      return {
        ...row,
        subject: change.trustDomain,
        value: change.bundle === undefined ? null : encodeBundle(change.bundle),
      };
    case 'federation':
      return { ...row, subject: change.trustDomain, value: null };
    case 'revocation':
      return { ...row, subject: change.key, value: change.revocation ? JSON.stringify(change.revocation) : null };
    case 'crl':
      return { ...row, subject: change.authority, value: change.crl ? JSON.stringify(change.crl) : null };
  }
}

/** Reads a row back. The text is ours, so it is not checked again. */
export function rowChange(row: Tables['changes']): Change {
  const { position, subject, value } = row;
  switch (row.kind) {
    case 'entry':
      return {
        position,
        kind: 'entry',
        id: subject,
        entry: value === null ? undefined : JSON.parse(value),
        before:
          row.before_spiffe_id === null
            ? undefined
            : ({ spiffeId: row.before_spiffe_id, parentId: row.before_parent_id } as {
                spiffeId: never;
                parentId: never;
              }),
      };
    case 'node':
      return {
        position,
        kind: 'node',
        id: subject as never,
        node: value === null ? undefined : JSON.parse(value),
        keepsRights: row.before_spiffe_id !== null,
      };
    case 'bundle':
      return {
        position,
        kind: 'bundle',
        trustDomain: subject as never,
        bundle: value === null ? undefined : decodeBundle(value),
      };
    case 'revocation':
      return { position, kind: 'revocation', key: subject, revocation: value === null ? undefined : JSON.parse(value) };
    case 'crl':
      return { position, kind: 'crl', authority: subject, crl: value === null ? undefined : JSON.parse(value) };
    default:
      return { position, kind: 'federation', trustDomain: subject as never };
  }
}
