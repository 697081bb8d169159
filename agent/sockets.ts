/** Where the agent's sockets live: the Workload API's directory open to every process, the admin socket's to its owner. */
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import { makePrivate } from './state.ts';

/**
 * Makes both directories where they are missing. A directory that was there keeps its mode, except that the admin
 * socket's must not be one that others may enter. Throws `config/invalid`.
 */
export function prepareSockets(socket: string, adminSocket: string): void {
  const open = dirname(socket);
  const closed = dirname(adminSocket);
  if (open === closed) {
    throw new Fault('config/invalid', `the sockets ${quote(socket)} and ${quote(adminSocket)} are in one directory`, {
      hint: 'Every process may enter the directory of the Workload API: give the admin socket another one.',
    });
  }
  if (!existsSync(open)) {
    try {
      mkdirSync(open, { recursive: true, mode: 0o755 });
      // Whatever the umask: a workload of another user must get to the socket.
      chmodSync(open, 0o755);
    } catch (error) {
      throw new Fault(
        'config/invalid',
        `directory ${quote(open)} of the socket cannot be made: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
  makePrivate(closed);
}
