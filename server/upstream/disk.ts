/**
 * Upstream `disk`: a certificate authority in files, which signs ours here. The files are read at each signature and
 * looked at every few seconds, so that a new certificate or root counts without a restart.
 */
import type { KeyObject } from 'node:crypto';
import { createPublicKey, sign } from 'node:crypto';
import { keyTypeOf, keyTypes } from '../../src/crypto/algorithms.ts';
import { type Certificate, KeyUsage } from '../../src/crypto/certificate.ts';
import {
  basicConstraints,
  keyUsage,
  prepareIssuer,
  subjectAltName,
  subjectKeyId,
  writeCertificate,
} from '../../src/crypto/certificate-writer.ts';
import { parseCsr } from '../../src/crypto/csr.ts';
import { readPrivateKeyPem } from '../../src/crypto/pem.ts';
import { newSerial } from '../../src/crypto/serial.ts';
import { Fault, quote } from '../../src/errors.ts';
import { readSecretFile } from '../../src/keys/secret-file.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { svidValidity } from '../../src/spiffe/lifetime.ts';
import { certificatesIn, isRoot, readCertificate, rootsIn, untainted } from './certificate-files.ts';
import type { Upstream } from './upstream.ts';

export interface DiskUpstreamOptions {
  readonly certFile: string;
  readonly keyFile: string;
  /** Roots; without it the certificate itself is the root. */
  readonly bundleFile?: string;
}

export function diskUpstream(
  options: DiskUpstreamOptions,
  { clock, random }: { clock: Clock; random: Random },
): Upstream {
  async function readChain(): Promise<{
    issuer: Certificate;
    above: readonly Buffer[];
    roots: readonly X509Authority[];
  }> {
    const chain = await certificatesIn(options.certFile, 'upstream certificate');
    const issuer = readCertificate(chain[0] as Buffer, options.certFile);
    if (options.bundleFile !== undefined) return { issuer, above: chain, roots: await rootsIn(options.bundleFile) };
    if (!isRoot(issuer)) {
      throw new Fault(
        'upstream/refused',
        `the certificate in ${quote(options.certFile)} did not sign itself, so it is no root`,
        { hint: 'Give upstream.disk.bundleFile, with the roots it leads to.' },
      );
    }
    return { issuer, above: [], roots: [untainted(issuer.der)] };
  }

  return {
    name: 'disk',
    isLocal: true,
    async mint(csr, ttl) {
      const request = parseCsr(csr, { mlDsa: true });
      const { issuer, above, roots } = await readChain();
      const key = await keyOf(options.keyFile, issuer, options.certFile);
      const now = clock.now();
      if (issuer.notAfter <= now) {
        throw new Fault(
          'upstream/refused',
          `the certificate in ${quote(options.certFile)} expired at ${new Date(issuer.notAfter).toISOString()}`,
          { hint: 'Put a new one in its place; the server takes it up by itself.' },
        );
      }
      const prepared = prepareIssuer({ certificate: issuer });
      const der = writeCertificate(
        {
          serial: newSerial(random),
          issuer: prepared.name,
          ...svidValidity(now, ttl, issuer.notAfter),
          subject: request.subject,
          spki: request.spki,
          extensions: [
            keyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign),
            basicConstraints({ ca: true }),
            subjectKeyId(request.spki),
            prepared.authorityKeyId,
            subjectAltName({ uris: request.uris }),
          ],
          algorithm: prepared.algorithm,
        },
        (tbs) => sign(keyTypes[keyTypeOf(key)].hash, tbs, key),
      );
      return { chain: [der, ...above], roots };
    },
    async state() {
      return { x509Authorities: (await readChain()).roots };
    },
  };
}

async function keyOf(path: string, issuer: Certificate, certFile: string): Promise<KeyObject> {
  const key = readPrivateKeyPem(await readSecretFile(path, 'upstream key'), `upstream key ${quote(path)}`);
  if (createPublicKey(key).export({ format: 'der', type: 'spki' }).equals(issuer.spki)) return key;
  throw new Fault(
    'upstream/refused',
    `the key in ${quote(path)} is not that of the certificate in ${quote(certFile)}`,
    { hint: 'Give the two that belong together.' },
  );
}
