/** A certificate authority in real files, as upstream `disk` reads it, and a server's options for it. */
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { authorityId } from '../../src/crypto/certificate.ts';
import { pemEncode } from '../../src/crypto/pem.ts';
import { type TestAuthority, testAuthority } from './ca.ts';

const day = 24 * 3_600_000;
const pem = (...all: readonly Buffer[]) => all.map((der) => pemEncode('CERTIFICATE', der)).join('');

export interface UpstreamFiles {
  readonly paths: { readonly certFile: string; readonly keyFile: string; readonly bundleFile?: string };
  /** Options of a server below it, by their flags' names. */
  readonly flags: Readonly<Record<string, string>>;
  at(file: string): string;
  /** The id of the root that is there. */
  root(): string;
  put(authority: TestAuthority, root?: TestAuthority): Promise<void>;
  /** Puts a new root in the place of the one there is; gives its id. */
  rotate(): Promise<string>;
  /** Takes over what another one has. */
  copyFrom(other: UpstreamFiles): Promise<void>;
  close(): Promise<void>;
}

/** @param now milliseconds */
export async function upstreamFiles(
  now: number,
  options: { intermediate?: boolean; pathLength?: number } = {},
): Promise<UpstreamFiles> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const at = (file: string) => join(dir, file);
  const { intermediate = false, ...wishes } = options;
  const newRoot = () => testAuthority({ now, root: { uris: [], notAfter: now + 30 * day, ...wishes } });
  let root = '';
  async function put(authority: TestAuthority, above = authority): Promise<void> {
    root = authorityId(above.certificate);
    await writeFile(at('cert.pem'), pem(...(authority === above ? [authority.der] : authority.above)));
    await writeFile(at('key.pem'), pemEncode('PRIVATE KEY', authority.key.exportPkcs8()), { mode: 0o600 });
    await writeFile(at('roots.pem'), pem(above.der));
  }
  async function rotate(): Promise<string> {
    const next = newRoot();
    await put(intermediate ? next.intermediate({ uris: [], notAfter: now + 30 * day }) : next, next);
    return root;
  }
  await rotate();
  const paths = {
    certFile: at('cert.pem'),
    keyFile: at('key.pem'),
    ...(intermediate && { bundleFile: at('roots.pem') }),
  };
  const flags = {
    'upstream-authority': 'disk',
    ...Object.fromEntries(
      Object.entries(paths).map(([key, path]) => [
        `upstream-disk-${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
        path,
      ]),
    ),
  };
  return {
    paths,
    flags,
    at,
    root: () => root,
    put,
    rotate,
    async copyFrom(other) {
      for (const name of ['cert.pem', 'key.pem', 'roots.pem']) await copyFile(other.at(name), at(name));
      root = other.root();
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}
