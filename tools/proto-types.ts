/**
 * Types of the wire messages in proto/gen/, for `import type` alone: they are made from proto/ for the type checker and
 * never run, so a checkout works without them and none is committed.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { packageFiles } from '../src/rpc/load.ts';
import { root, run } from './run.ts';

const directory = join(root, 'proto', 'gen');
// What messageOptions in src/rpc/load.ts says, in this tool's words.
const options = ['--keepCase', '--longs=String', '--enums=String', '--defaults', '--arrays', '--oneofs'];

rmSync(directory, { recursive: true, force: true });
const { code, output } = await run(
  'proto-loader-gen-types',
  [
    ...Object.values(packageFiles).flat(),
    ...options,
    `--outDir=${directory}`,
    '--importFileExtension=.ts',
    '--grpcLib=@grpc/grpc-js',
    // Last: it takes every word that follows.
    `--includeDirs=${join(root, 'proto')}`,
  ],
  { capture: true },
);
if (code !== 0) {
  console.error(output.trim());
  process.exitCode = 1;
}
