/**
 * What an upstream authority gave, checked before anything believes it: our key, a certificate authority of our trust
 * domain, a path to one of the roots that holds now, and room below it for the SVIDs we are to sign.
 */
import {
  authorityId,
  type Certificate,
  certificateLimits,
  KeyUsage,
  parseCertificate,
} from '../../src/crypto/certificate.ts';
import { verifyChain } from '../../src/crypto/chain.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';

/** As an upstream gives it. */
export interface Minted {
  /** DER, our certificate first, then those between it and a root; a root at the end does no harm. */
  readonly chain: readonly Buffer[];
  readonly roots: readonly X509Authority[];
}

/** A checked path. */
export interface MintedPath {
  readonly certificate: Certificate;
  /** Above our certificate and below the root, nearest first. */
  readonly intermediates: readonly Certificate[];
  readonly root: Certificate;
  /** `authorityId` of the root. */
  readonly rootId: string;
  /** The earliest end on the path: nothing signed below may outlive it. Milliseconds. */
  readonly notAfter: number;
}

/**
 * Throws `upstream/refused` with what is wrong.
 * @param spki of the key that asked
 * @param now milliseconds
 */
export function checkMinted(
  { chain, roots }: Minted,
  asked: {
    readonly spki: Buffer;
    readonly trustDomain: TrustDomain;
    /** `tainted` or `revoked`, of roots that are so here whatever the upstream says; absent for none. */
    readonly distrusted?: (rootId: string) => string | undefined;
  },
  now: number,
): MintedPath {
  if (chain.length === 0 || chain.length > certificateLimits.chain)
    throw refused(`a chain of ${chain.length} certificates; 1 to ${certificateLimits.chain} are expected`);
  const [certificate, ...above] = chain.map((der) => parse(der, 'chain')) as [Certificate, ...Certificate[]];
  if (!certificate.spki.equals(asked.spki)) throw refused('a certificate for another key than the one that asked');
  if (!certificate.isCa) throw refused('a certificate that is no certificate authority');
  if (certificate.keyUsage !== undefined && (certificate.keyUsage & KeyUsage.keyCertSign) === 0)
    throw refused('a certificate whose key may not sign certificates');
  const own = trustDomainId(asked.trustDomain);
  const foreign = certificate.uris.find((uri) => uri !== own);
  if (foreign !== undefined) throw refused(`a certificate for ${quote(foreign)}; ${quote(own)} was asked for`);

  const untainted = roots.filter(({ tainted }) => !tainted).map((root) => parse(root.certificate, 'root'));
  if (untainted.length === 0)
    throw refused(roots.length === 0 ? 'no root certificate' : 'only root certificates that are tainted');
  const against = (root: Certificate): string | undefined => asked.distrusted?.(authorityId(root));
  const trusted = untainted.filter((root) => against(root) === undefined);
  const below = untainted.find((root) => against(root) !== undefined && leadsTo(root));
  if (below !== undefined && !trusted.some(leadsTo))
    throw refused(
      `a certificate below root ${authorityId(below)}, which is ${against(below)} here`,
      'Have the upstream authority sign below another root.',
    );
  let path: Certificate[];
  try {
    path = verifyChain(certificate, above, trusted, now);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw refused(`a chain that does not verify: ${error.message.replace(/^certificate is not valid: /, '')}`);
  }
  function leadsTo(root: Certificate): boolean {
    try {
      return verifyChain(certificate, above, [root], now).length > 0;
    } catch {
      return false;
    }
  }
  const room = roomBelow(path);
  if (room < 0)
    throw refused(
      'a chain whose path length allows no certificate authority of ours',
      'Have the upstream certificate made with a path length that is longer by one, or without one.',
    );
  const root = path.at(-1) as Certificate;
  return {
    certificate,
    intermediates: path.slice(1, -1),
    root,
    rootId: authorityId(root),
    notAfter: Math.min(...path.map(({ notAfter }) => notAfter)),
  };
}

/**
 * How many certificate authorities may stand below the first certificate of a path before a leaf; negative when even the
 * first is one too many (RFC 5280 §4.2.1.9).
 * @param path our certificate first, a root last
 */
export function roomBelow(path: readonly Certificate[]): number {
  let room = Number.POSITIVE_INFINITY;
  let authorities = 0;
  for (const held of path) {
    if (held.pathLength !== undefined) room = Math.min(room, held.pathLength - authorities);
    // Those that issued themselves do not count.
    if (!held.issuer.equals(held.subject)) authorities++;
  }
  return room;
}

function parse(der: Buffer, where: string): Certificate {
  try {
    return parseCertificate(der);
  } catch (error) {
    throw refused(`a ${where} that cannot be read: ${(error as Error).message}`);
  }
}

function refused(what: string, hint = 'Nothing was changed here. See how the upstream authority is set up.'): Fault {
  return new Fault('upstream/refused', `the upstream authority gave ${what}`, { hint });
}
