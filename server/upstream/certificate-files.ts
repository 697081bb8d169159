/** Certificates in files of an operator's, read with a sentence for each thing that may be wrong. */
import { type Certificate, isSignedBy, parseCertificate } from '../../src/crypto/certificate.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import { readFileOf } from '../../src/keys/secret-file.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';

/** The certificates of a PEM file, DER. Throws `config/invalid`, `input/invalid`. @param what for messages */
export async function certificatesIn(path: string, what: string): Promise<Buffer[]> {
  return pemDecode(await readFileOf(path, what), 'CERTIFICATE', `${what} ${quote(path)}`);
}

/** Throws `upstream/refused`. */
export function readCertificate(der: Buffer, path: string): Certificate {
  try {
    return parseCertificate(der);
  } catch (error) {
    throw new Fault('upstream/refused', `${quote(path)} holds a certificate that cannot be read`, {
      detail: (error as Error).message,
      cause: error,
    });
  }
}

/** The roots of a PEM file. Throws as the two above. */
export async function rootsIn(path: string): Promise<readonly X509Authority[]> {
  const roots = await certificatesIn(path, 'upstream roots');
  for (const root of roots) readCertificate(root, path);
  return roots.map(untainted);
}

export const isRoot = (certificate: Certificate): boolean => isSignedBy(certificate, certificate);

export const untainted = (certificate: Buffer): X509Authority => ({ certificate, tainted: false });
