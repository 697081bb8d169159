/** Which operations write, for those who ask for them from elsewhere and load no statement for it. */
import type { OperationName, writes } from './operations.ts';

const names: Readonly<Record<keyof typeof writes, true>> = {
  claim: true,
  createEntries: true,
  updateEntries: true,
  deleteEntries: true,
  pruneEntries: true,
  attestNode: true,
  renewNode: true,
  activateNode: true,
  banNode: true,
  deleteNode: true,
  setNodeVersion: true,
  putBundle: true,
  deleteBundle: true,
  createToken: true,
  pruneTokens: true,
  createFederation: true,
  updateFederation: true,
  deleteFederation: true,
  putDocument: true,
  pruneChanges: true,
  renewLog: true,
  recordIssued: true,
  addRevocations: true,
  addIssued: true,
  putCrl: true,
  pruneRevocations: true,
};

export const isWrite = (name: OperationName): boolean => Object.hasOwn(names, name);
