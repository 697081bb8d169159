/** A place is a fresh folder and the programs that a test runs in it; when the test ends they stop, then it goes. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Program, type StartOptions, start } from './program.ts';

export interface Place {
  readonly dir: string;
  /** A path in the place; its folder is made. */
  path(...parts: string[]): string;
  /** Starts a program that stops with the place. */
  start(name: string, command: string, args: readonly string[], options?: StartOptions): Promise<Program>;
  /** Stops all programs, last started first, and removes the folder. */
  close(): Promise<void>;
}

/** Makes a place under the system's temporary folder: short enough for socket paths in it. */
export function makePlace(): Place {
  const dir = mkdtempSync(join(tmpdir(), 'mp-'));
  const programs: Program[] = [];
  return {
    dir,
    path(...parts) {
      const path = join(dir, ...parts);
      mkdirSync(join(path, '..'), { recursive: true });
      return path;
    },
    async start(name, command, args, options) {
      const program = await start(name, command, args, options);
      programs.push(program);
      return program;
    },
    async close() {
      for (const program of programs.reverse()) await program.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Does something in a place of its own, which closes whatever comes of it. */
export async function withPlace<T>(work: (place: Place) => Promise<T>): Promise<T> {
  const place = makePlace();
  try {
    return await work(place);
  } finally {
    await place.close();
  }
}

/** A TCP port of 127.0.0.1 that nobody listens on now. For programs which cannot be told to choose one themselves. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}
