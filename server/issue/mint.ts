/** What an operator asks for with a certificate request: its one SPIFFE ID, and DNS names without doubles. */
import type { Csr } from '../../src/crypto/csr.ts';
import { Fault, quote } from '../../src/errors.ts';
import { checkDnsName } from '../../src/spiffe/entry.ts';
import { parseId, requireWorkloadId, type TrustDomain } from '../../src/spiffe/id.ts';
import type { X509Profile } from './x509.ts';

/** Throws `input/invalid` and `id/invalid`. @param request known to be signed by its key @param ttl gives milliseconds, or throws */
export function mintProfile(request: Csr, ttl: () => number, trustDomain: TrustDomain): X509Profile {
  const [uri, ...others] = request.uris;
  if (uri === undefined || others.length > 0) {
    throw new Fault('input/invalid', `the CSR must hold exactly one URI SAN, it has ${request.uris.length}`, {
      hint: `Put spiffe://${trustDomain}/... into the CSR as its only URI.`,
    });
  }
  return {
    id: requireWorkloadId(parseId(uri), trustDomain, "the CSR's SPIFFE ID"),
    spki: request.spki,
    keyBits: request.key.keyBits,
    subject: request.subject,
    dnsNames: distinctDnsNames(request.dnsNames),
    ttl: ttl(),
  };
}

/** Valid names without doubles; a wildcard that covers another name of the list is refused, since it hides it. */
function distinctDnsNames(names: readonly string[]): readonly string[] {
  const distinct = [...new Set(names.map(checkDnsName))];
  for (const name of distinct) {
    const covering = `*${name.slice(name.indexOf('.'))}`;
    if (!name.startsWith('*.') && name.includes('.') && distinct.includes(covering)) {
      throw new Fault('input/invalid', `DNS name ${quote(covering)} overlaps with ${quote(name)}`, {
        hint: 'Keep one of them.',
      });
    }
  }
  return distinct;
}
