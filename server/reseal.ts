/** The change of the passphrase that seals the keys of a server, and those that the servers of a database share. */
import { join } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import type { RemotePorts } from '../src/keys/remote-keys.ts';
import {
  type Resealed,
  type ResealedThing,
  type Resealing,
  resealed,
  resealFile,
  resealing,
} from '../src/keys/reseal.ts';
import { isSealed } from '../src/keys/seal.ts';
import { requireStopped } from '../src/rpc/socket-path.ts';
import { sharedKeysDocument } from './authority/token-keys.ts';
import type { ServerOptions } from './config.ts';
import { openStore } from './store/open.ts';
import type { Journal } from './store/store.ts';

const mostTries = 50;

/** Throws `state/refused` while this server runs; other servers of the database may, if they know both passphrases. */
export async function resealServer(options: ServerOptions, ports: RemotePorts): Promise<readonly ResealedThing[]> {
  const by = await resealing(options.keys, ports);
  await requireStopped(options.adminSocket, 'server');
  const done: ResealedThing[] = [];
  if (options.keys.shareJwt) {
    const store = await openStore({ url: options.database, migrate: false });
    try {
      await store.claim(options.trustDomain);
      done.push({ name: `${sharedKeysDocument} in the database`, result: await resealShared(store.journal, by) });
    } finally {
      await store.close();
    }
  }
  done.push(await resealFile(join(options.dataDir, 'keys.json'), by));
  return done;
}

/** Other servers may write it meanwhile: the database decides. */
async function resealShared(journal: Journal, by: Resealing): Promise<Resealed> {
  const name = `${sharedKeysDocument} in the database`;
  for (let tries = 0; tries < mostTries; tries++) {
    const found = await journal.get(sharedKeysDocument);
    if (found === undefined) return 'absent';
    const before = Buffer.from(found.text);
    if (!isSealed(before)) throw new Fault('data/corrupt', `key file ${quote(name)} is not sealed, as it was written`);
    const content = await resealed(before, name, by);
    if (content === undefined) return 'already';
    if (await journal.put(sharedKeysDocument, content.toString('utf8'), found.version)) return 'resealed';
  }
  throw new Fault('system/failed', `${quote(name)} could not be changed: other servers kept changing it first`);
}
