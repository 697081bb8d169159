/** An X.509-SVID as files: svid.pem, key.pem (0600) and bundle.pem, each replaced whole. */
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pemEncode } from '../src/crypto/pem.ts';
import { Fault, quote } from '../src/errors.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import type { Ports } from './ports.ts';

export interface SvidFiles {
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  /** PKCS#8 DER. */
  readonly key: Buffer;
  /** DER roots. */
  readonly roots: readonly Buffer[];
}

export const certificatesPem = (certificates: readonly Buffer[]): string =>
  certificates.map((der) => pemEncode('CERTIFICATE', der)).join('');
export const keyPem = (key: Buffer): string => pemEncode('PRIVATE KEY', key);

/**
 * Writes the files into a directory, which is made when it is missing. The key comes first: a program that sees the new
 * certificate finds its key there already.
 * @param index of several SVIDs: 0 has the plain names, the others svid.1.pem and so on
 */
export async function writeSvid(
  directory: string,
  svid: SvidFiles,
  index: number,
  ports: Ports,
): Promise<readonly string[]> {
  const name = (base: string): string =>
    join(resolve(ports.directory, directory), index === 0 ? `${base}.pem` : `${base}.${index}.pem`);
  const files = [
    [name('bundle'), certificatesPem(svid.roots), 0o644],
    [name('key'), keyPem(svid.key), 0o600],
    [name('svid'), certificatesPem(svid.chain), 0o644],
  ] as const;
  await inDirectory(resolve(ports.directory, directory), async () => {
    for (const [path, content, mode] of files) await writeFileAtomic(path, content, mode);
  });
  return files.map(([path]) => path).reverse();
}

/** Writes the revocation lists as crl.pem; nothing when there are none, as below a server that keeps none. */
export async function writeCrls(directory: string, crls: readonly Buffer[], ports: Ports): Promise<readonly string[]> {
  if (crls.length === 0) return [];
  const path = join(resolve(ports.directory, directory), 'crl.pem');
  const content = crls.map((der) => pemEncode('X509 CRL', der)).join('');
  await inDirectory(resolve(ports.directory, directory), () => writeFileAtomic(path, content, 0o644));
  return [path];
}

/** Makes a directory and writes into it. Throws `input/invalid` naming it when that fails. */
export async function inDirectory(directory: string, write: () => Promise<void>): Promise<void> {
  try {
    await mkdir(directory, { recursive: true });
    await write();
  } catch (error) {
    throw new Fault('input/invalid', `nothing can be written into ${quote(directory)}: ${(error as Error).message}`, {
      hint: 'Give a directory that you may write to.',
      cause: error,
    });
  }
}
