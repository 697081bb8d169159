/**
 * A note beside an admin socket on why its program ended of itself, so that whoever finds nobody at the socket is told. It
 * is for people: nothing is decided by it, and it goes with the next start.
 */
import { rm } from 'node:fs/promises';
import { asFault } from '../errors.ts';
import { readFileIfThere, writeFileAtomic } from './file.ts';

export interface Ended {
  /** Unix milliseconds. */
  readonly at: number;
  readonly why: string;
  readonly hint: string;
}

const pathOf = (adminSocket: string): string => `${adminSocket}.ended`;
/** Bytes of a note that are believed to be ours. */
const largest = 8_192;

/**
 * Leaves the note, for the owner alone. Not of wrong options, which are told where they were given, nor of a socket that
 * another program has: that one still answers.
 */
export async function writeEnded(adminSocket: string, error: unknown, at: number): Promise<void> {
  const { message, hint = '', code } = asFault(error);
  if (code === 'config/invalid' || /^another program serves/.test(message)) return;
  const note: Ended = { at, why: message, hint };
  await writeFileAtomic(pathOf(adminSocket), `${JSON.stringify(note)}\n`, 0o600);
}

export const clearEnded = (adminSocket: string): Promise<void> => rm(pathOf(adminSocket), { force: true });

/** Why the program of this admin socket ended; undefined when it left no note that can be read. */
export async function readEnded(adminSocket: string): Promise<Ended | undefined> {
  try {
    const file = await readFileIfThere(pathOf(adminSocket));
    if (file === undefined || file.data.length > largest) return undefined;
    const { at, why: reason, hint } = JSON.parse(file.data.toString('utf8')) as Partial<Ended>;
    if (typeof at !== 'number' || typeof reason !== 'string' || typeof hint !== 'string') return undefined;
    return { at, why: reason, hint };
  } catch {
    return undefined;
  }
}
