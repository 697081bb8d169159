/**
 * The program as a user has it installed: the built files and the packages, without sources, so that the launcher has
 * nothing to compare and a change of the checkout during the bench does not change what is measured.
 */
import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { root, run } from '../tools/run.ts';

/** Builds and lays out the installation in `dir`. Gives the file of the command; throws when the build fails. */
export async function installBuild(dir: string): Promise<string> {
  const built = await run('node', ['tools/build.ts'], { capture: true });
  if (built.code !== 0) throw new Error(`npm run build failed\n${built.output}`);
  mkdirSync(dir, { recursive: true });
  for (const name of ['bin', 'dist', 'package.json']) cpSync(join(root, name), join(dir, name), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
  return join(dir, 'bin', 'mutual.js');
}
