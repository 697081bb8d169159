/** Binding a Unix socket so that it appears whole, with its mode, and only in the place of one that nobody serves. */
import { chmodSync, existsSync, lstatSync, mkdirSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { Fault, quote } from '../errors.ts';

/** sun_path holds 108 bytes, the last of which is NUL. */
const longestPath = 107;

/** Checks that a path fits into a socket address. Throws `config/invalid`. */
export function checkSocketPath(path: string): string {
  const length = Buffer.byteLength(path);
  if (length > longestPath) {
    throw new Fault(
      'config/invalid',
      `socket path ${quote(path)} is ${length} bytes long: at most ${longestPath} fit into a socket address`,
      {
        hint: 'Choose a shorter path, such as one under /run.',
      },
    );
  }
  if (path === '' || path.includes('\0')) throw new Fault('config/invalid', `socket path ${quote(path)} is not a path`);
  return path;
}

/**
 * Lets `server` listen on `path` with the given mode, making its directory (0755) if it is missing. Returns a function
 * that removes the socket, unless another program has put its own there since. Throws `state/refused` when somebody
 * answers on the path already, `config/invalid` when it cannot be bound.
 */
export async function listenOnPath(server: Server, path: string, mode: number, backlog: number): Promise<() => void> {
  checkSocketPath(path);
  // Bound under a neighbouring name of the same length and then renamed: nobody can connect before the mode is set, a
  // socket left behind is replaced in one step, and closing does not remove a successor's.
  const neighbour = path.slice(0, -1) + (path.endsWith('~') ? '-' : '~');
  try {
    makeDirectory(dirname(path));
    await requireFree(path);
    await requireFree(neighbour);
    removeIfThere(neighbour);
    await listening(server, neighbour, backlog);
    chmodSync(neighbour, mode);
    renameSync(neighbour, path);
  } catch (error) {
    server.close();
    throw error instanceof Fault ? error : cannotListen(path, error);
  }
  const inode = statSync(path).ino;
  return () => {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) removeIfThere(path);
  };
}

/** Step by step: Node's recursive mkdir never returns from file systems that take no directories, such as /proc. */
function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, 0o755);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function listening(server: Server, path: string, backlog: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path, backlog }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

/** Refuses a path that is no socket, or a socket on which somebody answers. */
async function requireFree(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new Fault('config/invalid', `${quote(path)} exists and is not a socket`, {
      hint: 'Remove it, or choose another path.',
    });
  }
  if (await answers(path)) {
    throw new Fault('state/refused', `another program serves ${quote(path)} already`, {
      hint: 'Stop that program, or choose another path.',
    });
  }
}

/**
 * For work that may not be done beside a program: throws `state/refused` while it serves its socket.
 * @param what the program, as one speaks of it
 */
export async function requireStopped(path: string, what: string): Promise<void> {
  if (!(await answers(path))) return;
  throw new Fault('state/refused', `the ${what} runs: it answers at ${quote(path)}`, {
    hint: `Stop the ${what}, give the same command again, then start it anew.`,
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // A full backlog (EAGAIN) is somebody too.
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function cannotListen(path: string, error: unknown): Fault {
  const why = (error as NodeJS.ErrnoException).code ?? String(error);
  return new Fault('config/invalid', `cannot listen on ${quote(path)}: ${why}`, {
    hint: 'Check that this user may write to the directory.',
    cause: error,
  });
}
