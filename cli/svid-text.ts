/** X.509-SVIDs as received, for people: what holds, until when, and who is trusted. */
import { parseCertificate, splitCertificates } from '../src/crypto/certificate.ts';
import type { Message } from './caller.ts';
import { printDeadline } from './duration.ts';
import type { Ports } from './ports.ts';
import { table } from './table.ts';

export function svidTable(response: Message, ports: Ports): string {
  const hasHints = response.svids.some(({ hint }: Message) => hint !== '');
  return table(
    ports,
    ['SPIFFE ID', ...(hasHints ? ['HINT'] : []), 'VALID FROM', 'VALID UNTIL', 'AUTHORITIES'],
    response.svids.map((svid: Message) => {
      const leaf = parseCertificate(splitCertificates(svid.x509_svid)[0]!);
      return [
        svid.spiffe_id,
        ...(hasHints ? [svid.hint] : []),
        printDeadline(Math.floor(leaf.notBefore / 1000), ports.clock.now()),
        printDeadline(Math.floor(leaf.notAfter / 1000), ports.clock.now()),
        String(splitCertificates(svid.bundle).length),
      ];
    }),
  );
}

/** Trust domains with the number of their authorities. */
export function bundleTable(bundles: Record<string, Buffer>, ports: Ports): string {
  return table(
    ports,
    ['TRUST DOMAIN', 'AUTHORITIES', 'LAST ENDS'],
    Object.entries(bundles)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, der]) => {
        const roots = splitCertificates(der).map((each) => parseCertificate(each));
        const last = Math.max(0, ...roots.map((root) => Math.floor(root.notAfter / 1000)));
        return [name, String(roots.length), printDeadline(last, ports.clock.now())];
      }),
  );
}
