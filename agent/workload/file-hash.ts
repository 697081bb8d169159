/** The SHA-256 of a program, computed once for each state of its file. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { LRUCache } from 'lru-cache';
import { Fault } from '../../src/errors.ts';

/** Hashes kept, 64 characters each. */
const kept = 1_000;
const chunk = 256 * 1024;

export interface FileHashes {
  /**
   * Hex SHA-256 of the file behind `path`.
   * @param limit bytes; 0 for none. Throws `limit/exceeded` for a larger file.
   */
  sha256(path: string, limit: number, signal: AbortSignal): Promise<string>;
}

export function fileHashes(): FileHashes {
  const known = new LRUCache<string, string>({ max: kept });
  return {
    async sha256(path, limit, signal) {
      // One descriptor for all: what is measured is what is hashed, whatever happens to the name.
      const file = await open(path, 'r');
      try {
        const { dev, ino, mtimeNs, ctimeNs, size } = await file.stat({ bigint: true });
        if (limit > 0 && size > BigInt(limit)) {
          throw new Fault(
            'limit/exceeded',
            `the program has ${size} bytes, more than the limit of ${limit} for hashing`,
          );
        }
        const key = `${dev}:${ino}:${mtimeNs}:${ctimeNs}:${size}`;
        const before = known.get(key);
        if (before !== undefined) return before;
        const hash = createHash('sha256');
        const buffer = Buffer.allocUnsafe(chunk);
        for (let position = 0; ; ) {
          signal.throwIfAborted();
          const { bytesRead } = await file.read(buffer, 0, chunk, position);
          if (bytesRead === 0) break;
          hash.update(buffer.subarray(0, bytesRead));
          position += bytesRead;
        }
        const digest = hash.digest('hex');
        const after = await file.stat({ bigint: true });
        // A file that was written meanwhile has no hash; a running program cannot be written, a script's interpreter may.
        if (after.mtimeNs !== mtimeNs || after.size !== size)
          throw new Fault('state/refused', 'the program changed while it was hashed');
        known.set(key, digest);
        return digest;
      } finally {
        await file.close();
      }
    },
  };
}
