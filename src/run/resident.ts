/**
 * What this process has of the machine's memory and does not need. Two things neither the kernel nor V8 takes back by itself
 * while there is memory left: pages of the program's own files, of which a start maps fifty megabytes and a program at
 * rest uses ten, and what the C library keeps of what was freed.
 */
import { readFileSync } from 'node:fs';
import { cLibrary } from './c-library.ts';

/** A part of the address space. */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: number;
}

/**
 * The mappings in the text of /proc/self/smaps whose pages can be let go of at no loss: private, of a file that still has
 * its name, not writable, and without any page that this process has changed, in memory or swapped out. A page that the
 * linker relocated and then protected is such a one, and a program that loses it ends. Neither are addons of Node taken,
 * which can be unloaded. What cannot be read is left out.
 */
export function cleanMappings(smaps: string): Mapping[] {
  return smaps.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).flatMap((block) => {
    const [, from, to] =
      /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9]\d* +\/.*(?<! \(deleted\)|\.node)\n/.exec(block) ?? [];
    if (from === undefined || to === undefined) return [];
    const is = (field: string, wanted: RegExp): boolean =>
      wanted.test(new RegExp(`^${field}: +(\\d+) kB$`, 'm').exec(block)?.[1] ?? 'absent');
    if (!is('Rss', /^[1-9]/) || !is('Anonymous', /^0$/) || !is('Swap', /^0$/)) return [];
    const address = BigInt(`0x${from}`);
    return [{ address, bytes: Number(BigInt(`0x${to}`) - address) }];
  });
}

/** What is asked of the system, as far as it is there. */
export interface System {
  /** The text of /proc/self/smaps; throws where there is none. */
  smaps(): string;
  /** The kernel maps these pages again, from its cache, when they are used. */
  letGo(mapping: Mapping): void;
  /** Gives back what the C library keeps of what was freed, on another thread: of a lot it takes some 10 ms. */
  trim(): Promise<void>;
}

const MADV_DONTNEED = 4;

/** Loads koffi. Throws where it has no build for the platform, or the C library no such call. */
function linux(): System {
  const { library } = cLibrary();
  const madvise = library.func('int madvise(uintptr_t address, size_t bytes, int advice)');
  let trim: { async(keep: number, done: () => void): void } | undefined;
  try {
    trim = library.func('int malloc_trim(size_t keep)');
  } catch {
    // musl gives back by itself
  }
  return {
    smaps: () => readFileSync('/proc/self/smaps', 'latin1'),
    letGo: ({ address, bytes }) => void madvise(address, bytes, MADV_DONTNEED),
    trim: () => new Promise((resolve) => (trim === undefined ? resolve() : trim.async(0, resolve))),
  };
}

/**
 * What lets go of all that is not needed: in about 5 ms, and what is needed after all costs a fault for each 64 kB, a
 * millisecond in all. Does what it can where something is missing. Its promise resolves when all is given back and never rejects.
 */
export function lettingGo(open: () => System = linux): () => Promise<void> {
  let system: System | undefined;
  return async () => {
    try {
      system ??= open();
    } catch {
      return;
    }
    try {
      // In one turn: only this thread unloads code, so what was read still holds.
      for (const mapping of cleanMappings(system.smaps())) system.letGo(mapping);
    } catch {
      // No /proc, or none of Linux'.
    }
    await system.trim();
  };
}
