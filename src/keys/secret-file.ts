/** Secrets of the configuration: from a file, read anew each time they are needed, or from the value of a variable. */
import { readFile, stat } from 'node:fs/promises';
import { Fault, quote } from '../errors.ts';

/**
 * The secret. Newlines at the end of a file do not count. Throws `config/invalid` when the file cannot be read, is empty,
 * or may be read by everybody, and when nothing was given.
 * @param what names it in messages, such as `passphrase`
 */
export async function readSecret(
  given: { readonly value?: string | undefined; readonly file?: string | undefined },
  what: string,
  hint: string,
): Promise<string> {
  if (given.file !== undefined) return readSecretFile(given.file, what);
  if (given.value !== undefined) return given.value;
  throw new Fault('config/invalid', `no ${what} is given`, { hint });
}

/** As `readSecret`, from a file. */
export async function readSecretFile(path: string, what: string): Promise<string> {
  const text = await readFileOf(path, what);
  const { mode } = await stat(path);
  if ((mode & 0o007) !== 0) {
    throw new Fault('config/invalid', `the file of the ${what}, ${quote(path)}, may be used by everybody`, {
      hint: `Consider it known to others; else run: chmod o= ${path}`,
    });
  }
  const secret = text.replace(/[\r\n]+$/, '');
  if (secret !== '') return secret;
  throw new Fault('config/invalid', `the file of the ${what}, ${quote(path)}, is empty`);
}

/** The text of a file that is no secret. Throws `config/invalid`. */
export async function readFileOf(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Fault(
      'config/invalid',
      `the file of the ${what}, ${quote(path)}, cannot be read: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}
