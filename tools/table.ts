/** Tables beside the tools: a line of names, then a line for each row, tabs between. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './run.ts';

/** The rows of `tools/NAME`, each as its cells. */
export function readTable(name: string): string[][] {
  const [, ...rows] = readFileSync(join(root, 'tools', name), 'utf8')
    .trimEnd()
    .split('\n');
  return rows.map((row) => row.split('\t'));
}
