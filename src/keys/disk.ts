/**
 * Keys in one file, `{"keys": {"<id>": "<base64 PKCS#8>"}}`, readable by its owner alone, and sealed where that is asked
 * for. The file is read once, when opened, and written whole at each change before the change counts.
 */
import { generateKeyAside } from '../crypto/algorithms.ts';
import { isJsonObject, parseJsonObject } from '../crypto/json.ts';
import { Fault, quote } from '../errors.ts';
import { readFileIfThere, writeFileAtomic } from '../run/file.ts';
import { type HeldKey, heldKey, heldKeyOf, type KeyStore } from './key-store.ts';
import { isSealed, type Sealer } from './seal.ts';

/**
 * Opens the file, which need not exist; its folder must. Throws `data/corrupt` for content that is not what this store
 * writes, `state/refused` for a file that others may read, `keys/sealed` for one that cannot be opened with what was
 * given, and `system/failed` where the system refuses.
 * @param seal seals the file from the first write on; a plain one is taken as it is until then
 */
export async function diskKeys(path: string, seal?: Sealer): Promise<KeyStore> {
  let keys = await load(path, seal);
  let last: Promise<unknown> = Promise.resolve();

  /** One change after the other; memory follows the disk, not the other way. */
  const change = <T>(make: (next: Map<string, HeldKey>) => T): Promise<T> => {
    const done = last.then(async () => {
      const next = new Map(keys);
      const result = make(next);
      await save(path, next, seal);
      keys = next;
      return result;
    });
    last = done.catch(() => {});
    return done;
  };

  return {
    async generate(id, type) {
      const key = heldKey(id, (await generateKeyAside(type)).privateKey);
      return change((next) => {
        next.set(id, key);
        return key;
      });
    },
    get: async (id) => keys.get(id),
    list: async () => [...keys.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    async remove(id) {
      await last;
      if (keys.has(id)) await change((next) => next.delete(id));
    },
  };
}

async function load(path: string, seal: Sealer | undefined): Promise<Map<string, HeldKey>> {
  const found = await readFileIfThere(path).catch((error: unknown) => {
    throw new Fault('system/failed', `key file ${quote(path)} cannot be read`, { detail: String(error), cause: error });
  });
  const keys = new Map<string, HeldKey>();
  if (found === undefined) return keys;
  if ((found.mode & 0o077) !== 0) {
    throw new Fault(
      'state/refused',
      `key file ${quote(path)} has mode ${found.mode.toString(8)}: others than its owner have access to it`,
      {
        hint: `Consider its keys known to others; else run: chmod 600 ${path}`,
      },
    );
  }
  const stored = contentOf(await plainOf(found.data, path, seal), path);
  for (const [id, text] of Object.entries(stored)) {
    if (typeof text !== 'string' || text === '' || Buffer.from(text, 'base64').toString('base64') !== text)
      throw corrupt(path, `key ${quote(id)} is not base64`);
    try {
      keys.set(id, heldKeyOf(id, Buffer.from(text, 'base64')));
    } catch (error) {
      throw corrupt(
        path,
        error instanceof Fault ? `key ${quote(id)}: ${error.message}` : `key ${quote(id)} is not a PKCS#8 private key`,
      );
    }
  }
  return keys;
}

async function plainOf(data: Buffer, path: string, seal: Sealer | undefined): Promise<Buffer> {
  if (!isSealed(data)) return data;
  if (seal !== undefined) return seal.open(data, path);
  throw new Fault('keys/sealed', `key file ${quote(path)} is sealed, and nothing was given to open it`, {
    hint: 'Set keys.seal.by, and for a passphrase keys.seal.passphraseFile or MUTUAL_KEYS_SEAL_PASSPHRASE.',
  });
}

function contentOf(data: Buffer, path: string): { [id: string]: unknown } {
  let content: { [name: string]: unknown };
  try {
    content = parseJsonObject(data.toString('utf8'), 'it');
  } catch (error) {
    // The parser's own message could quote a key; it goes no further.
    throw corrupt(path, error instanceof Fault ? error.message : 'it cannot be read');
  }
  if (!isJsonObject(content.keys) || Object.keys(content).length !== 1)
    throw corrupt(path, 'it is not an object with the one member "keys"');
  return content.keys;
}

async function save(path: string, keys: ReadonlyMap<string, HeldKey>, seal: Sealer | undefined): Promise<void> {
  const stored: [string, string][] = [...keys.values()].map((key) => [key.id, key.exportPkcs8().toString('base64')]);
  const text = `${JSON.stringify({ keys: Object.fromEntries(stored) }, null, 2)}\n`;
  const content = seal === undefined ? text : await seal.seal(Buffer.from(text));
  await writeFileAtomic(path, content, 0o600).catch((error: unknown) => {
    throw new Fault('system/failed', `key file ${quote(path)} cannot be written`, {
      detail: String(error),
      cause: error,
    });
  });
}

function corrupt(path: string, why: string): Fault {
  return new Fault('data/corrupt', `key file ${quote(path)} is broken: ${why}`, {
    hint: 'Restore it from a copy, or move it away to begin with new keys.',
  });
}
