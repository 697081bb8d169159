/**
 * Files that hold keys, encrypted. A random file key encrypts the content (AES-256-GCM); the file key itself is wrapped by
 * a passphrase (scrypt, then AES-256-GCM) or by a key of another key manager that never leaves it. The header is
 * authenticated with the content, so that no part of a file can be swapped for another's.
 */
import { createCipheriv, createDecipheriv, scrypt } from 'node:crypto';
import { isJsonObject, type Json, parseJsonObject } from '../crypto/json.ts';
import { Fault, quote } from '../errors.ts';
import type { Random } from '../run/random.ts';

type Header = { readonly [name: string]: Json };
interface Held {
  readonly fileKey: Buffer;
  readonly wrapped: Header;
}

/** What can wrap a file key. */
export interface KeyWrapper {
  /** Stands in the file: `passphrase`, `vault`. */
  readonly by: string;
  /** Gives what stands in the file; nothing in it may be secret. */
  wrap(fileKey: Buffer): Promise<Header>;
  /** Throws `keys/sealed` when this wrapper cannot open it. */
  unwrap(wrapped: Header, path: string): Promise<Buffer>;
}

/** Seals files, and opens them. The file key is made once and kept for as long as the program runs. */
export interface Sealer {
  /** As that file was sealed when it was opened, a new one as the last that was. @param path names the file */
  seal(plain: Buffer, path: string): Promise<Buffer>;
  /** Throws `keys/sealed` for another passphrase or key, `data/corrupt` for content that was changed. */
  open(content: Buffer, path: string): Promise<Buffer>;
}

const format = 1;
const tagLength = 16;
/** Interactive strength of 2020s advice: 128 MiB and some 0.4 s a guess. */
export const scryptCost: ScryptCost = { n: 2 ** 17, r: 8, p: 1 };
export interface ScryptCost {
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** Whether content is a sealed file of ours, of whatever format. */
export function isSealed(content: Buffer): boolean {
  if (!content.includes('"sealed"')) return false;
  try {
    return isJsonObject(parseJsonObject(content.toString('utf8'), 'it').sealed);
  } catch {
    return false;
  }
}

export function sealer(wrapper: KeyWrapper, random: Random): Sealer {
  /** What sealed the file that was opened or made last, and each of them. */
  let latest: Held | undefined;
  const files = new Map<string, Held>();
  return {
    async seal(plain, path) {
      let held = files.get(path) ?? latest;
      if (held === undefined) {
        const fileKey = random.bytes(32);
        held = { fileKey, wrapped: await wrapper.wrap(fileKey) };
        latest = held;
      }
      const header = { version: format, by: wrapper.by, wrapped: held.wrapped };
      const data = encrypt(held.fileKey, random.bytes(12), plain, Buffer.from(JSON.stringify(header)));
      return Buffer.from(`${JSON.stringify({ sealed: { ...header, data: data.toString('base64') } }, null, 2)}\n`);
    },
    async open(content, path) {
      const corrupt = (why: string): Fault =>
        new Fault('data/corrupt', `sealed file ${quote(path)} is broken: ${why}`, { hint: 'Restore it from a copy.' });
      let sealed: Json | undefined;
      try {
        sealed = parseJsonObject(content.toString('utf8'), 'it').sealed;
      } catch (error) {
        throw corrupt((error as Error).message);
      }
      if (!isJsonObject(sealed)) throw corrupt('it has no member "sealed"');
      const { version, by, wrapped, data } = sealed;
      if (typeof version === 'number' && version > format) {
        throw new Fault(
          'data/foreign',
          `sealed file ${quote(path)} was written by a newer version of this program (format ${version})`,
          { hint: 'Run that version, or one after it.' },
        );
      }
      if (version !== format || typeof by !== 'string' || !isJsonObject(wrapped) || typeof data !== 'string')
        throw corrupt('it lacks a part');
      if (by !== wrapper.by) {
        throw new Fault('keys/sealed', `file ${quote(path)} is sealed by ${by}, not by ${wrapper.by}`, {
          hint: `Set keys.seal.by to ${by}.`,
        });
      }
      // Unwrapping costs a guess at the passphrase or a call: the files of one program share a key.
      const text = JSON.stringify(wrapped);
      const held = [latest, ...files.values()].find((one) => one && JSON.stringify(one.wrapped) === text);
      const fileKey = held?.fileKey ?? (await wrapper.unwrap(wrapped, path));
      const plain =
        fileKey.length === 32
          ? decrypt(fileKey, Buffer.from(data, 'base64'), Buffer.from(JSON.stringify({ version, by, wrapped })))
          : undefined;
      if (plain === undefined) throw corrupt('it was changed since it was written');
      latest = held ?? { fileKey, wrapped };
      files.set(path, latest);
      return plain;
    },
  };
}

/**
 * Wraps by a passphrase.
 * @param wishes `cost` of new files, which say their own; `next`: another passphrase, which opens files too
 */
export function passphraseWrapper(
  passphrase: string,
  random: Random,
  { cost = scryptCost, next }: { readonly cost?: ScryptCost; readonly next?: string | undefined } = {},
): KeyWrapper {
  return {
    by: 'passphrase',
    async wrap(fileKey) {
      const salt = random.bytes(16);
      const key = await stretch(passphrase, salt, cost);
      return {
        kdf: 'scrypt',
        ...cost,
        salt: salt.toString('base64'),
        key: encrypt(key, random.bytes(12), fileKey, Buffer.alloc(0)).toString('base64'),
      };
    },
    async unwrap(wrapped, path) {
      const { kdf, n, r, p, salt, key } = wrapped;
      const isCost = (value: Json | undefined, most: number): value is number =>
        typeof value === 'number' && value >= 1 && value <= most;
      // Bounds, so that a file cannot make the program take all memory of the machine.
      if (kdf !== 'scrypt' || !isCost(n, 2 ** 20) || !isCost(r, 32) || !isCost(p, 16) || (n & (n - 1)) !== 0 || n < 2) {
        throw new Fault(
          'data/corrupt',
          `sealed file ${quote(path)} is broken: its scrypt parameters are out of bounds`,
          {
            hint: 'Restore it from a copy.',
          },
        );
      }
      for (const one of next === undefined ? [passphrase] : [passphrase, next]) {
        const stretched = await stretch(one, Buffer.from(String(salt), 'base64'), { n, r, p });
        const fileKey = decrypt(stretched, Buffer.from(String(key), 'base64'), Buffer.alloc(0));
        if (fileKey !== undefined) return fileKey;
      }
      throw new Fault('keys/sealed', `the passphrase does not open ${quote(path)}`, {
        hint: 'Give the passphrase it was sealed with (keys.seal.passphraseFile or MUTUAL_KEYS_SEAL_PASSPHRASE).',
      });
    },
  };
}

function stretch(passphrase: string, salt: Buffer, { n, r, p }: ScryptCost): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const bytes = Buffer.from(passphrase.normalize('NFC'), 'utf8');
    scrypt(bytes, salt, 32, { N: n, r, p, maxmem: 256 * n * r }, (error, key) =>
      error ? reject(error) : resolve(key),
    );
  });
}

function encrypt(key: Buffer, nonce: Buffer, plain: Buffer, header: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(header);
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Undefined when the key is another, or anything was changed. */
function decrypt(key: Buffer, data: Buffer, header: Buffer): Buffer | undefined {
  if (data.length < 12 + tagLength) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, data.subarray(0, 12), { authTagLength: tagLength });
  decipher.setAAD(header);
  decipher.setAuthTag(data.subarray(-tagLength));
  try {
    return Buffer.concat([decipher.update(data.subarray(12, -tagLength)), decipher.final()]);
  } catch {
    return undefined;
  }
}
