/**
 * A key store in the database, for keys that all servers of a trust domain use: one document of the journal, always sealed
 * (src/keys/seal.ts), so that whoever can read the database has no key. Each change is one write with compare-and-swap.
 */
import { generateKeyAside } from '../../src/crypto/algorithms.ts';
import { Fault, quote } from '../../src/errors.ts';
import { printKeyFile, readKeyFile } from '../../src/keys/disk.ts';
import { type HeldKey, heldKey, type KeyStore } from '../../src/keys/key-store.ts';
import { isSealed, type Sealer } from '../../src/keys/seal.ts';
import type { Journal } from '../store/store.ts';

const mostTries = 50;

/** Opens the document, which need not exist. Throws `keys/sealed` for another passphrase or key, `data/corrupt`. */
export async function journalKeys(journal: Journal, name: string, seal: Sealer): Promise<KeyStore> {
  const place = `${name} in the database`;
  let version = 0;
  let keys = new Map<string, HeldKey>();

  async function read(): Promise<void> {
    const found = await journal.get(name);
    if (found?.version === version) return;
    keys = found ? await opened(Buffer.from(found.text)) : new Map();
    version = found?.version ?? 0;
  }
  async function opened(content: Buffer): Promise<Map<string, HeldKey>> {
    if (isSealed(content)) return readKeyFile(await seal.open(content, place), place);
    throw new Fault('data/corrupt', `key file ${quote(place)} is not sealed, as it was written`, {
      hint: 'Somebody has put it there: find out who. Remove it to begin with new keys.',
    });
  }
  async function change(make: (next: Map<string, HeldKey>) => boolean): Promise<void> {
    for (let tries = 0; tries < mostTries; tries++) {
      await read();
      const next = new Map(keys);
      if (!make(next)) return;
      const text = (await seal.seal(Buffer.from(printKeyFile(next)), place)).toString('utf8');
      if (!(await journal.put(name, text, version))) continue;
      keys = next;
      version++;
      return;
    }
    throw new Fault('system/failed', `${quote(place)} could not be changed: other servers kept changing it first`);
  }

  // One at a time in this process; the database decides between processes.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const done = last.then(work);
    last = done.catch(() => {});
    return done;
  };

  await read();
  return {
    async generate(id, type) {
      const key = heldKey(id, (await generateKeyAside(type)).privateKey);
      await inTurn(() => change((next) => next.set(id, key).has(id)));
      return key;
    },
    get: (id) => inTurn(async () => read().then(() => keys.get(id))),
    list: () => inTurn(async () => read().then(() => [...keys.values()].sort((a, b) => (a.id < b.id ? -1 : 1)))),
    remove: (id) => inTurn(() => change((next) => next.delete(id))),
  };
}
