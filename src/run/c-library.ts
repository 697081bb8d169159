/** What Node has no call for, asked of the C library itself. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

type Koffi = typeof import('koffi');

const require = createRequire(import.meta.url);

/**
 * The C library that this program is linked with, whichever that is (glibc or musl). Loading koffi takes 2 ms, on some platforms 8, and
 * a megabyte: to be called where something is first asked of it, not at a start. Throws where koffi has no build for the platform.
 */
export function cLibrary(): { readonly library: import('koffi').LibraryHandle; errno(): number } {
  const koffi = machineCode() ?? (require('koffi') as Koffi);
  return { library: koffi.load(null), errno: () => koffi.errno() };
}

/**
 * koffi without what its package does to find this: six of the eight milliseconds that an agent's first caller would wait for.
 * Undefined where it is not certain that it is the right one.
 */
function machineCode(): Koffi | undefined {
  const { platform, arch } = process;
  try {
    if (platform !== 'linux' || readFileSync('/proc/self/maps', 'latin1').includes('/ld-musl')) return undefined;
    return require(`@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`) as Koffi;
  } catch {
    return undefined;
  }
}
