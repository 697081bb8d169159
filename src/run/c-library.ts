/** What Node has no call for, asked of the C library itself. */
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/**
 * The C library that this program is linked with, whichever that is (glibc or musl). Loading koffi takes 8 ms and a
 * megabyte: to be called where something is first asked of it, not at a start. Throws where koffi has no build for the platform.
 */
export function cLibrary(): { readonly library: import('koffi').LibraryHandle; errno(): number } {
  const koffi = require('koffi') as typeof import('koffi');
  return { library: koffi.load(null), errno: () => koffi.errno() };
}
