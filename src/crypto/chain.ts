/**
 * Certification paths (RFC 5280 §6.1): from a leaf, through certificates its holder sent, to a certificate that is
 * trusted. The leaf's own meaning (is it an SVID, whose?) is not this file's business.
 */
import { Fault } from '../errors.ts';
import { type Certificate, certificateLimits, couldBeIssuer, KeyUsage, signatureVerifies } from './certificate.ts';
import { constraintProblem } from './name-constraints.ts';

/** Signatures tried before giving up: a hostile set of intermediates must not multiply the work. */
const mostSignatures = 48;

/**
 * Finds a path from `leaf` to one of `roots` and gives it, leaf first, root last. Each certificate is within its
 * validity and has no critical extension that is not understood; each issuer is a CA, may sign certificates, and keeps
 * its path length and name constraints. Roots are anchors whether or not they signed themselves, and bound by the same
 * rules. Throws `svid/invalid` with the first reason found.
 * @param now milliseconds since the epoch
 */
export function verifyChain(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  roots: readonly Certificate[],
  now: number,
): Certificate[] {
  if (intermediates.length >= certificateLimits.chain)
    throw refused(`its chain holds more than ${certificateLimits.chain} certificates`);
  const problem = certificateProblem(leaf, now);
  if (problem !== undefined) throw refused(problem);

  let signatures = 0;
  let reason: string | undefined;
  const refuse = (why: string): undefined => {
    reason ??= why;
    return undefined;
  };

  const extend = (path: readonly Certificate[]): Certificate[] | undefined => {
    const last = path.at(-1)!;
    for (const [candidates, anchors] of [
      [roots, true],
      [intermediates, false],
    ] as const) {
      for (const issuer of candidates) {
        if (!couldBeIssuer(last, issuer)) continue;
        // The same name and key twice on a path is a circle.
        if (path.some((held) => held.subject.equals(issuer.subject) && held.spki.equals(issuer.spki))) continue;
        const why = certificateProblem(issuer, now) ?? issuerProblem(issuer, path);
        if (why !== undefined) {
          refuse(`${anchors ? 'its authority' : 'an intermediate certificate'}: ${why}`);
          continue;
        }
        if (++signatures > mostSignatures) throw refused('its chain takes too many signatures to check');
        if (!signatureVerifies(last, issuer)) {
          refuse('a signature on its chain does not verify');
          continue;
        }
        const found = anchors ? [...path, issuer] : extend([...path, issuer]);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  };

  const found = extend([leaf]);
  if (found !== undefined) return found;
  throw refused(reason ?? 'it does not chain to an authority of its trust domain');
}

/** What holds of every certificate on a path. */
function certificateProblem(certificate: Certificate, now: number): string | undefined {
  if (now < certificate.notBefore)
    return `it is not valid before ${iso(certificate.notBefore)}; the time here is ${iso(now)}`;
  // Valid through the last second (RFC 5280 §4.1.2.5).
  if (now >= certificate.notAfter + 1000)
    return `it expired at ${iso(certificate.notAfter)}; the time here is ${iso(now)}`;
  const [unknown] = certificate.unknownCritical;
  return unknown === undefined ? undefined : `its critical extension ${unknown} is not understood`;
}

/** What holds of an issuer above `path`, whose first certificate is the leaf. */
function issuerProblem(issuer: Certificate, path: readonly Certificate[]): string | undefined {
  if (!issuer.isCa) return 'it is not a certificate authority';
  if (issuer.keyUsage !== undefined && (issuer.keyUsage & KeyUsage.keyCertSign) === 0)
    return 'its key may not sign certificates';
  const below = path.slice(1).filter((held) => !isSelfIssued(held)).length;
  if (issuer.pathLength !== undefined && below > issuer.pathLength) {
    return `it allows ${issuer.pathLength} certificate authorities below itself, and there are ${below}`;
  }
  if (issuer.nameConstraints === undefined) return undefined;
  for (const [index, held] of path.entries()) {
    if (index > 0 && isSelfIssued(held)) continue;
    const why = constraintProblem(issuer.nameConstraints, held);
    if (why !== undefined) return why;
  }
  return undefined;
}

const isSelfIssued = (certificate: Certificate): boolean => certificate.issuer.equals(certificate.subject);

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function refused(why: string): Fault {
  return new Fault('svid/invalid', `certificate is not valid: ${why}`);
}
