/** The store's ports over one function that asks the database. What is left of the log is the engine's. */
import type { Ask } from './operations.ts';
import type { Store } from './store.ts';

export function portsOver(ask: Ask): Omit<Store, 'log' | 'schema' | 'close'> {
  return {
    entries: {
      create: (drafts) => ask('createEntries', drafts),
      update: (patches) => ask('updateEntries', patches),
      delete: (ids) => ask('deleteEntries', ids),
      get: (id) => ask('getEntry', id),
      scan: (after, limit) => ask('scanEntries', after, limit),
      prune: (now, limit) => ask('pruneEntries', now, limit),
    },
    nodes: {
      attest: (node, token) => ask('attestNode', node, token),
      renew: (id, nextSerial, nextExpiresAt) => ask('renewNode', id, nextSerial, nextExpiresAt),
      activate: (id, serial) => ask('activateNode', id, serial),
      ban: (id) => ask('banNode', id),
      delete: (id) => ask('deleteNode', id),
      setVersion: (id, agentVersion) => ask('setNodeVersion', id, agentVersion),
      get: (id) => ask('getNode', id),
      scan: (after, limit) => ask('scanNodes', after, limit),
    },
    bundles: {
      get: (trustDomain) => ask('getBundle', trustDomain),
      list: () => ask('listBundles'),
      put: (bundle, expect) => ask('putBundle', bundle, expect),
      delete: (trustDomain, mode) => ask('deleteBundle', trustDomain, mode),
    },
    tokens: {
      create: (token, alias) => ask('createToken', token, alias),
      get: (value) => ask('getToken', value),
      prune: (now) => ask('pruneTokens', now),
    },
    federation: {
      create: (relationship, bundle) => ask('createFederation', relationship, bundle),
      update: (relationship, bundle) => ask('updateFederation', relationship, bundle),
      delete: (trustDomain) => ask('deleteFederation', trustDomain),
      get: (trustDomain) => ask('getFederation', trustDomain),
      list: () => ask('listFederation'),
    },
    journal: {
      get: (name) => ask('getDocument', name),
      list: (prefix) => ask('listDocuments', prefix),
      put: (name, text, expect) => ask('putDocument', name, text, expect),
    },
    revocations: {
      record: (issued) => ask('recordIssued', issued),
      find: (serial, now) => ask('findIssued', serial, now),
      add: (revocations) => ask('addRevocations', revocations),
      addIssued: (of, value, revokedAt) => ask('addIssued', of, value, revokedAt),
      list: () => ask('listRevocations'),
      putCrl: (crl) => ask('putCrl', crl),
      listCrls: () => ask('listCrls'),
      prune: (now, limit) => ask('pruneRevocations', now, limit),
    },
    claim: (trustDomain) => ask('claim', trustDomain),
    ping: () => ask('ping'),
  };
}
