/**
 * Everything that can be asked of the database, in one table: by name, since the askers may be in another thread. Writes
 * take a Transaction, reads a Session.
 */
import { deleteBundle } from './bundle-removal.ts';
import { getBundle, listBundles, putBundle } from './bundles.ts';
import { claim, ping } from './claim.ts';
import { createEntries, deleteEntries, getEntry, pruneEntries, scanEntries, updateEntries } from './entries.ts';
import { createFederation, deleteFederation, getFederation, listFederation, updateFederation } from './federation.ts';
import { getDocument, listDocuments, putDocument } from './journal.ts';
import { pruneChanges, readChanges, readHead, renewLog } from './log.ts';
import {
  activateNode,
  attestNode,
  banNode,
  deleteNode,
  getNode,
  renewNode,
  scanNodes,
  setNodeVersion,
} from './nodes.ts';
import {
  addIssued,
  addRevocations,
  findIssued,
  listCrls,
  listRevocations,
  pruneRevocations,
  putCrl,
  recordIssued,
} from './revocations.ts';
import { createToken, getToken, pruneTokens } from './tokens.ts';

export const writes = {
  claim,
  createEntries,
  updateEntries,
  deleteEntries,
  pruneEntries,
  attestNode,
  renewNode,
  activateNode,
  banNode,
  deleteNode,
  setNodeVersion,
  putBundle,
  deleteBundle,
  createToken,
  pruneTokens,
  createFederation,
  updateFederation,
  deleteFederation,
  putDocument,
  pruneChanges,
  renewLog,
  recordIssued,
  addRevocations,
  addIssued,
  putCrl,
  pruneRevocations,
};

export const reads = {
  ping,
  getEntry,
  scanEntries,
  getNode,
  scanNodes,
  getBundle,
  listBundles,
  getToken,
  getFederation,
  listFederation,
  getDocument,
  listDocuments,
  readChanges,
  readHead,
  findIssued,
  listRevocations,
  listCrls,
};

type Table = typeof writes & typeof reads;
export type OperationName = keyof Table;
// biome-ignore lint/suspicious/noExplicitAny: any first parameter, which the database side supplies
type Rest<F> = F extends (first: any, ...rest: infer R) => unknown ? R : never;
type Result<F> = F extends (...all: never) => infer R ? Awaited<R> : never;

/** Asks for an operation by name with the arguments that follow its transaction or session. */
export type Ask = <K extends OperationName>(name: K, ...given: Rest<Table[K]>) => Promise<Result<Table[K]>>;
