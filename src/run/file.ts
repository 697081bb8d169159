/** Files that are either as they were or as they should be, whatever happens in between. */

import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Puts `data` in the place of a file: written beside it, flushed, renamed over it, and the folder flushed. A reader sees
 * the old content or the new; after a crash likewise. The file has exactly `mode`, whatever the umask, from its first byte.
 * @param data whole, or in pieces, between which others have their turn
 * @param mode permission bits, such as 0o600
 */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array | Iterable<string>,
  mode: number,
): Promise<void> {
  const beside = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    // O_EXCL: a link that someone put there is not followed.
    const file = await open(
      beside,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      mode & 0o700,
    );
    try {
      await file.chmod(mode);
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
  const folder = await open(dirname(path), constants.O_RDONLY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * A file's content and its permission bits, or undefined when there is none. Other failures are thrown as they come. Read at
 * once: a start waits for some of these, and four turns of the thread pool take ten times as long as the reading.
 */
export async function readFileIfThere(path: string): Promise<{ data: Buffer; mode: number } | undefined> {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    // One descriptor for both, so that the bits are those of the content.
    const { mode } = fstatSync(file);
    return { data: readFileSync(file), mode: mode & 0o7777 };
  } finally {
    closeSync(file);
  }
}
