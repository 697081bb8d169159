/** What the other end of a TLS connection presented, as bytes: what Node makes of the fields is not used. */
import type { TLSSocket } from 'node:tls';
import { certificateLimits } from '../crypto/certificate.ts';

/** The peer's chain, DER, leaf first; empty when it presented none. At most 16 certificates. */
export function presentedChain(socket: TLSSocket): Buffer[] {
  const chain: Buffer[] = [];
  let certificate = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length < certificateLimits.chain) {
    const der = certificate.raw;
    if (chain.some((earlier) => earlier.equals(der))) break;
    chain.push(der);
    certificate = certificate.issuerCertificate ?? undefined;
  }
  return chain;
}
