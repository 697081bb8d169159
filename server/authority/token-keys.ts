/** Where JWT and WIT authorities have their keys: with the other keys of this server, or where all servers have them. */
import type { KeyStore } from '../../src/keys/key-store.ts';
import { type KeyOwner, type KeyPorts, openKeys, openSealer } from '../../src/keys/open.ts';
import type { ServerOptions } from '../config.ts';
import type { Journal } from '../store/store.ts';
import { journalKeys } from './journal-keys.ts';
import { sharedHolder } from './slots-document.ts';

/** Where they are in the database. */
export const sharedKeysDocument = `keys@${sharedHolder}`;

/** Keys that all servers use. `database`: what one finds, all find; `elsewhere`: if all are configured alike. */
export interface SharedKeys {
  readonly keys: KeyStore;
  readonly place: 'database' | 'elsewhere';
}

/** Undefined when each server has its own. Throws as `openKeys`. */
export async function openSharedTokenKeys(
  { keys: options }: Pick<ServerOptions, 'keys'>,
  owner: KeyOwner,
  journal: Journal,
  ports: KeyPorts,
): Promise<SharedKeys | undefined> {
  if (!options.shareJwt) return undefined;
  if (options.store !== 'disk')
    return { keys: await openKeys(options, { ...owner, server: sharedHolder }, ports), place: 'elsewhere' };
  const seal = ports.seal ?? (await openSealer(options, ports));
  // A rule of the options has seen to it.
  if (seal === undefined) throw new TypeError('keys.shareJwt without keys.seal');
  return { keys: await journalKeys(journal, sharedKeysDocument, seal), place: 'database' };
}
