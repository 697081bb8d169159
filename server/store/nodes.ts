/** Attested nodes in the database. */
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { selectorSet } from '../../src/spiffe/selector.ts';
import { deleteChildren } from './entries.ts';
import { type NodeRow, nodeColumns } from './schema.ts';
import { insert, type Session, statement } from './statement.ts';
import type { Node, StoredNode } from './store.ts';
import { consumeToken } from './tokens.ts';
import type { Transaction } from './transaction.ts';

const byId = statement<{ id: string }, NodeRow>((db, slot) =>
  db.selectFrom('nodes').select(nodeColumns).where('id', '=', slot('id')),
);
const page = statement<{ after: number; limit: number }, NodeRow>((db, slot) =>
  db.selectFrom('nodes').select(nodeColumns).where('seq', '>', slot('after')).orderBy('seq').limit(slot('limit')),
);
const replace = statement<{ [K in keyof NodeRow]: NodeRow[K] }, unknown>((db, slot) =>
  db
    .updateTable('nodes')
    .set({
      attestation_type: slot('attestation_type'),
      serial: slot('serial'),
      expires_at: slot('expires_at'),
      next_serial: slot('next_serial'),
      next_expires_at: slot('next_expires_at'),
      can_reattest: slot('can_reattest'),
      selectors: slot('selectors'),
      agent_version: slot('agent_version'),
    })
    .where('seq', '=', slot('seq')),
);
const remove = statement<{ seq: number }, unknown>((db, slot) => db.deleteFrom('nodes').where('seq', '=', slot('seq')));

/** See `Nodes.attest`. A refused attestation changes nothing: a banned node's token stays. */
export async function attestNode(
  tx: Transaction,
  node: Node,
  token?: { value: string; now: number },
): Promise<'attested' | 'banned' | 'token-missing' | 'token-expired'> {
  const old = await getNode(tx, node.id);
  if (old !== undefined && isBanned(old)) return 'banned';
  if (token !== undefined) {
    const taken = await consumeToken(tx, token.value, token.now);
    if (taken !== 'taken') return taken;
  }
  const fresh: StoredNode = { ...plain(node), seq: old?.seq ?? tx.next };
  if (old === undefined) await insert(tx, 'nodes', [nodeRow(fresh)]);
  else await tx.all(replace, nodeRow(fresh));
  const keepsRights = old !== undefined && old.selectors.join('\n') === fresh.selectors.join('\n');
  tx.append({ kind: 'node', id: node.id, node: fresh, keepsRights });
  return 'attested';
}

/** See `Nodes.renew`. */
export async function renewNode(
  tx: Transaction,
  id: SpiffeId,
  nextSerial: string,
  nextExpiresAt: number,
): Promise<boolean> {
  const old = await getNode(tx, id);
  if (old === undefined || isBanned(old)) return false;
  return await write(tx, { ...old, nextSerial, nextExpiresAt });
}

/** See `Nodes.activate`. */
export async function activateNode(tx: Transaction, id: SpiffeId, serial: string): Promise<boolean> {
  const old = await getNode(tx, id);
  if (old === undefined || isBanned(old) || serial === '') return false;
  // Two first uses of a renewed SVID may arrive together: the second finds the work done.
  if (old.serial === serial) return true;
  if (old.nextSerial !== serial) return false;
  return await write(tx, { ...old, serial, expiresAt: old.nextExpiresAt, nextSerial: '', nextExpiresAt: 0 });
}

/** See `Nodes.ban`. */
export async function banNode(tx: Transaction, id: SpiffeId): Promise<boolean> {
  const old = await getNode(tx, id);
  if (old === undefined) return false;
  return isBanned(old) || (await write(tx, { ...old, serial: '', nextSerial: '', nextExpiresAt: 0 }));
}

/** See `Nodes.delete`. */
export async function deleteNode(tx: Transaction, id: SpiffeId): Promise<boolean> {
  const old = await getNode(tx, id);
  if (old === undefined) return false;
  await tx.all(remove, { seq: old.seq });
  tx.append({ kind: 'node', id, node: undefined, keepsRights: false });
  // A token is good once, so this node never comes back. Others may attest again, and find what an operator gave them.
  if (old.attestationType === 'join_token') await deleteChildren(tx, id);
  return true;
}

/** See `Nodes.setVersion`. */
export async function setNodeVersion(tx: Transaction, id: SpiffeId, agentVersion: string): Promise<boolean> {
  const old = await getNode(tx, id);
  if (old === undefined) return false;
  return old.agentVersion === agentVersion || (await write(tx, { ...old, agentVersion }));
}

/** See `Nodes.get`. */
export async function getNode(session: Session, id: SpiffeId): Promise<StoredNode | undefined> {
  const rows = await session.all(byId, { id });
  return rows[0] && rowNode(rows[0]);
}

/** See `Nodes.scan`. */
export async function scanNodes(session: Session, after: number, limit: number): Promise<StoredNode[]> {
  return (await session.all(page, { after, limit })).map(rowNode);
}

const isBanned = (node: Node): boolean => node.serial === '';

/** Writes what is not its selectors. */
async function write(tx: Transaction, node: StoredNode): Promise<true> {
  await tx.all(replace, nodeRow(node));
  tx.append({ kind: 'node', id: node.id, node, keepsRights: true });
  return true;
}

/** Only the fields of a node, so that what a caller's object holds besides does not reach the log. */
function plain(node: Node): Node {
  return {
    id: node.id,
    attestationType: node.attestationType,
    serial: node.serial,
    expiresAt: node.expiresAt,
    nextSerial: node.nextSerial,
    nextExpiresAt: node.nextExpiresAt,
    canReattest: node.canReattest,
    selectors: selectorSet(node.selectors),
    agentVersion: node.agentVersion,
  };
}

function nodeRow(node: StoredNode): NodeRow {
  return {
    seq: node.seq,
    id: node.id,
    attestation_type: node.attestationType,
    serial: node.serial,
    expires_at: node.expiresAt,
    next_serial: node.nextSerial,
    next_expires_at: node.nextExpiresAt,
    can_reattest: Number(node.canReattest),
    selectors: JSON.stringify(node.selectors),
    agent_version: node.agentVersion,
  };
}

function rowNode(row: NodeRow): StoredNode {
  return {
    seq: row.seq,
    id: row.id as SpiffeId,
    attestationType: row.attestation_type,
    serial: row.serial,
    expiresAt: row.expires_at,
    nextSerial: row.next_serial,
    nextExpiresAt: row.next_expires_at,
    canReattest: row.can_reattest === 1,
    selectors: JSON.parse(row.selectors),
    agentVersion: row.agent_version,
  };
}
