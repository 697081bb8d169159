/** A /proc made of files, for cgroups that this machine's kernel does not have. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CgroupFiles, cgroupFiles } from '../../../agent/workload/cgroup.ts';

export interface ProcTree {
  readonly root: string;
  readonly cgroups: CgroupFiles;
  /** Puts a process into cgroups, given as the lines of its file; gives its pid. */
  put(...lines: string[]): number;
  move(pid: number, ...lines: string[]): void;
  end(pid: number): void;
  remove(): void;
}

/** @param own the lines of the agent's own cgroup file */
export function procTree(...own: string[]): ProcTree {
  const root = mkdtempSync(join(tmpdir(), 'mu-proc-'));
  let last = 1_000;
  const write = (name: string | number, lines: readonly string[]): void => {
    mkdirSync(join(root, String(name)), { recursive: true });
    writeFileSync(join(root, String(name), 'cgroup'), lines.map((line) => `${line}\n`).join(''));
  };
  write('self', own.length > 0 ? own : ['0::/system.slice/mutual-agent.service']);
  return {
    root,
    cgroups: cgroupFiles(root),
    put(...lines) {
      last += 1;
      write(last, lines);
      return last;
    },
    move: (pid, ...lines) => write(pid, lines),
    end: (pid) => rmSync(join(root, String(pid)), { recursive: true }),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}
