/** Files named on the command line; `-` is standard input. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import type { Ports } from './ports.ts';

/** Reads a whole file. @param what the flag, for the message. Throws `input/invalid`. */
export async function readInput(path: string, what: string, ports: Ports): Promise<string> {
  if (path === '-') return ports.stdin();
  try {
    return await readFile(resolve(ports.directory, path), 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === 'ENOENT'
        ? 'there is no such file'
        : code === 'EACCES'
          ? 'permission denied'
          : code === 'EISDIR'
            ? 'it is a directory'
            : String(error);
    throw new Fault('input/invalid', `${what}: file ${quote(path)} cannot be read: ${why}`, {
      hint: 'Name a readable file, or - for standard input.',
      cause: error,
    });
  }
}

/** Reads a file of JSON. Throws `input/invalid`. */
export async function readJson(path: string, what: string, ports: Ports): Promise<unknown> {
  const text = await readInput(path, what, ports);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault(
      'input/invalid',
      `${what}: ${path === '-' ? 'standard input' : `file ${quote(path)}`} is not JSON: ${(error as Error).message}`,
      { cause: error },
    );
  }
}
