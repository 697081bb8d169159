/** Running other programs from the scripts, on the Node and with the tools that the checkout pins. */
import { spawn } from 'node:child_process';
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
}

/** Runs a command in the checkout to its end. Never rejects: a command that cannot start has code 127. */
export function run(
  command: string,
  args: readonly string[],
  { capture = false, env = {} }: RunOptions = {},
): Promise<Ran> {
  return new Promise((resolve) => {
    const path = `${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH ?? ''}`;
    const child = spawn(command === 'node' ? process.execPath : command, args, {
      cwd: root,
      env: { ...process.env, PATH: path, ...env },
      stdio: capture ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (part) => (output += String(part)));
    child.on('error', (error) => resolve({ code: 127, output: `${output}${error.message}\n` }));
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}
