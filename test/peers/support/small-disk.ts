/** A disk of a few megabytes that can be made larger and read-only: a tmpfs. Needs root. */
import { mkdirSync } from 'node:fs';
import { runOk } from './program.ts';

export interface SmallDisk {
  /** Where it is mounted. */
  readonly path: string;
  /** Mounts it anew with options of mount(8), such as `size=64m` or `ro`. */
  remount(options: string): Promise<void>;
  close(): Promise<void>;
}

/** @param options of mount(8), such as `size=2m` */
export async function makeSmallDisk(path: string, options: string): Promise<SmallDisk> {
  mkdirSync(path, { recursive: true });
  await runOk('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', path]);
  return {
    path,
    remount: async (more) => void (await runOk('mount', ['-o', `remount,${more}`, path])),
    close: async () => void (await runOk('umount', ['--lazy', path])),
  };
}
