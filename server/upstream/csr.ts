/**
 * Upstream `csr`: somebody signs by hand, in another room if need be. The request is in one file; when the signed
 * certificate is in the other, it is taken. Until then this is told, and told again, while what there is goes on.
 */
import type { Certificate } from '../../src/crypto/certificate.ts';
import { parseCsr } from '../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import { readFileIfThere, writeFileAtomic } from '../../src/run/file.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { certificatesIn, isRoot, readCertificate, rootsIn, untainted } from './certificate-files.ts';
import type { Upstream } from './upstream.ts';

export interface CsrUpstreamOptions {
  /** PEM, written here. */
  readonly requestFile: string;
  /** PEM, put there by whoever signs: our certificate first, then those between it and a root. */
  readonly certFile: string;
  /** Roots; without it the last certificate of the other file is the root. */
  readonly bundleFile?: string;
}

export function csrUpstream({ requestFile, certFile, bundleFile }: CsrUpstreamOptions): Upstream {
  /** What was signed last; undefined before the first. */
  async function readChain(): Promise<readonly [Certificate, ...Certificate[]] | undefined> {
    if ((await readFileIfThere(certFile)) === undefined) return undefined;
    const chain = (await certificatesIn(certFile, 'signed certificate')).map((der) => readCertificate(der, certFile));
    return chain as [Certificate, ...Certificate[]];
  }

  async function roots(chain: readonly Certificate[] | undefined): Promise<readonly X509Authority[]> {
    if (bundleFile !== undefined) return rootsIn(bundleFile);
    const last = chain?.at(-1);
    if (last === undefined) return [];
    if (isRoot(last)) return [untainted(last.der)];
    throw new Fault(
      'upstream/refused',
      `the last certificate in ${quote(certFile)} did not sign itself, so it is no root`,
      {
        hint: 'Put the root at its end, or give upstream.csr.bundleFile.',
      },
    );
  }

  return {
    name: 'csr',
    isLocal: true,
    async mint(csr) {
      const { spki } = parseCsr(csr);
      const chain = await readChain();
      if (chain?.[0].spki.equals(spki)) return { chain: chain.map(({ der }) => der), roots: await roots(chain) };
      await offer(csr, spki, requestFile);
      throw waiting(chain?.[0], requestFile, certFile);
    },
    async state() {
      return { x509Authorities: await roots(await readChain()) };
    },
  };
}

/** Writes the request, unless one for the same key is there: that may be on its way already. */
async function offer(csr: Buffer, spki: Buffer, path: string): Promise<void> {
  try {
    const there = await readFileIfThere(path);
    if (there && isFor(there.data.toString('utf8'), spki)) return;
    await writeFileAtomic(path, pemEncode('CERTIFICATE REQUEST', csr), 0o644);
  } catch (error) {
    const what = `the certificate request cannot be written to ${quote(path)}: ${(error as Error).message}`;
    throw new Fault('upstream/refused', what, { hint: 'Make its folder, writable for this server.', cause: error });
  }
}

function isFor(pem: string, spki: Buffer): boolean {
  try {
    const [request] = pemDecode(pem, 'CERTIFICATE REQUEST', 'request');
    return request !== undefined && parseCsr(request).spki.equals(spki);
  } catch {
    return false;
  }
}

function waiting(last: Certificate | undefined, requestFile: string, certFile: string): Fault {
  const there =
    last === undefined
      ? 'is not there yet'
      : `is not there yet; the one that is there is for another key and ends at ${new Date(last.notAfter).toISOString()}`;
  return new Fault(
    'upstream/unavailable',
    `the request in ${quote(requestFile)} waits to be signed: its certificate belongs into ${quote(certFile)} and ${there}`,
    { hint: 'Put our certificate first, then those between it and the root.' },
  );
}
