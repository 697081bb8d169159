/**
 * Keys in one file, `{"keys": {"<id>": "<base64 PKCS#8>"}}`, readable by its owner alone, and sealed where that is asked
 * for. The file is written whole at each change before the change counts, and read again when somebody else has changed or
 * removed it: what is not in it is not there.
 */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
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
  /** What the file was when it was last read or written. */
  let seen: string | undefined;
  let keys = new Map<string, HeldKey>();
  let last: Promise<unknown> = Promise.resolve();

  async function follow(): Promise<void> {
    const now = await markOf(path);
    if (now === seen || now === away) return;
    keys = await load(path, seal);
    seen = now;
  }

  /** One after the other; memory follows the disk, not the other way. */
  function inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const done = last.then(follow).then(work);
    last = done.catch(() => {});
    return done;
  }
  async function put(next: ReadonlyMap<string, HeldKey>): Promise<void> {
    await save(path, next, seal);
    keys = new Map(next);
    seen = await markOf(path);
  }

  await follow();
  return {
    async generate(id, type) {
      const key = heldKey(id, (await generateKeyAside(type)).privateKey);
      await inTurn(() => put(new Map(keys).set(id, key)));
      return key;
    },
    get: (id) => inTurn(() => keys.get(id)),
    list: () => inTurn(() => [...keys.values()].sort((a, b) => (a.id < b.id ? -1 : 1))),
    remove: (id) =>
      inTurn(async () => {
        if (keys.has(id)) await put(new Map([...keys].filter(([name]) => name !== id)));
      }),
  };
}

/** The folder is not there: of its files nothing is known. */
const away = 'away';

/** Differs when the file was written or replaced; undefined when there is none in its folder. */
async function markOf(path: string): Promise<string | undefined> {
  try {
    const { ino, mtimeNs, size, mode } = await stat(path, { bigint: true });
    return [ino, mtimeNs, size, mode].join(' ');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // What else is in the way is told when it is read.
    if (code !== 'ENOENT') return `${code}`;
    return (await stat(dirname(path)).catch(() => undefined)) ? undefined : away;
  }
}

async function load(path: string, seal: Sealer | undefined): Promise<Map<string, HeldKey>> {
  const found = await readFileIfThere(path).catch((error: unknown) => {
    throw new Fault('system/failed', `key file ${quote(path)} cannot be read`, { detail: String(error), cause: error });
  });
  if (found === undefined) return new Map();
  if ((found.mode & 0o077) !== 0) {
    throw new Fault(
      'state/refused',
      `key file ${quote(path)} has mode ${found.mode.toString(8)}: others than its owner have access to it`,
      {
        hint: `Consider its keys known to others; else run: chmod 600 ${path}`,
      },
    );
  }
  return readKeyFile(await plainOf(found.data, path, seal), path);
}

/** Reads what `printKeyFile` gives. Throws `data/corrupt`, with `path` as the name of the file. */
export function readKeyFile(plain: Buffer, path: string): Map<string, HeldKey> {
  const keys = new Map<string, HeldKey>();
  const stored = contentOf(plain, path);
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

/** The keys in plain. */
export function printKeyFile(keys: ReadonlyMap<string, HeldKey>): string {
  const stored: [string, string][] = [...keys.values()].map((key) => [key.id, key.exportPkcs8().toString('base64')]);
  return `${JSON.stringify({ keys: Object.fromEntries(stored) }, null, 2)}\n`;
}

async function save(path: string, keys: ReadonlyMap<string, HeldKey>, seal: Sealer | undefined): Promise<void> {
  const text = printKeyFile(keys);
  const content = seal === undefined ? text : await seal.seal(Buffer.from(text), path);
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
