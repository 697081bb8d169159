/** Running other programs from the scripts, on the Node and with the tools that the checkout pins. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../', import.meta.url));

export interface Ran {
  /** 0 to 255; a signal counts as 1. */
  readonly code: number;
  /** Both outputs as they came, when captured. */
  readonly output: string;
}

export interface RunOptions {
  /** Keeps the output instead of showing it. */
  readonly capture?: boolean;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** After as many minutes the command is ended, and its children that were still running are named. */
  readonly limit?: number;
}

/** Runs a command in the checkout to its end. Never rejects: a command that cannot start has code 127. */
export function run(
  command: string,
  args: readonly string[],
  { capture = false, env = {}, limit = 0 }: RunOptions = {},
): Promise<Ran> {
  return new Promise((resolve) => {
    const path = `${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH ?? ''}`;
    const child = spawn(command === 'node' ? process.execPath : command, args, {
      cwd: root,
      env: { ...process.env, PATH: path, ...env },
      stdio: capture ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
    });
    const late = (): void => {
      console.error(`${command} has not ended after ${limit} minutes. Still running: ${childrenOf(child.pid)}`);
      child.kill('SIGKILL');
    };
    const timer = limit > 0 ? setTimeout(late, limit * 60_000) : undefined;
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (part) => (output += String(part)));
    child.on('error', (error) => resolve({ code: 127, output: `${output}${error.message}\n` }));
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 1, output });
    });
  });
}

/** The last words of the command lines of a process's children, which for tests are their files. */
function childrenOf(pid = 0): string {
  try {
    const pids = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
    return pids.map((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').split('\0').at(-2)).join(', ');
  } catch {
    return 'unknown';
  }
}
