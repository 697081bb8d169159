/** X.509-SVIDs: what a leaf must be, and whether an authority of its own trust domain stands behind it (X509-SVID §5). */
import {
  type Certificate,
  certificateLimits,
  extendedKeyUsages,
  KeyUsage,
  parseCertificate,
} from '../crypto/certificate.ts';
import { verifyChain } from '../crypto/chain.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle, X509Authority } from './bundle.ts';
import { parseId, pathOf, type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts';
import type { CheckRevocation } from './revocation.ts';

export interface VerifiedX509Svid {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
  /** Leaf first, the trusted authority last. */
  readonly path: readonly Certificate[];
}

/**
 * Checks what a validator must of a leaf alone, and gives its SPIFFE ID (X509-SVID §5.2): exactly one URI name, which is
 * a SPIFFE ID with a path; not a CA; a key that signs data but neither certificates nor revocation lists.
 * Throws `svid/invalid`.
 */
export function checkLeaf(certificate: Certificate): SpiffeId {
  const { uris, keyUsage } = certificate;
  const [uri] = uris;
  if (uri === undefined) throw refused('it has no URI name, so no SPIFFE ID');
  if (uris.length > 1) throw refused(`it has ${uris.length} URI names where a SPIFFE ID stands alone`);
  const id = idOf(uri);
  if (pathOf(id) === '') throw refused(`its ID ${quote(id)} has no path: it names a trust domain, not a workload`);
  if (certificate.isCa) throw refused('it is a certificate authority; those never authenticate a peer');
  if (keyUsage === undefined) throw refused('it says nothing of its key usage');
  if ((keyUsage & (KeyUsage.keyCertSign | KeyUsage.cRLSign)) !== 0)
    throw refused('its key may sign certificates or revocation lists');
  if ((keyUsage & KeyUsage.digitalSignature) === 0) throw refused('its key may not make digital signatures');
  return id;
}

/**
 * Verifies a chain, leaf first, against the authorities of the leaf's own trust domain and no other (ID-17, X509-24).
 * @param chain DER certificates
 * @param bundle of the leaf's trust domain, or where to find it
 * @param now milliseconds since the epoch
 * @param revocation refuses what was revoked; without it nothing is
 * Throws `svid/invalid`, or `der/invalid` for bytes that are no certificates.
 */
export function verifyX509Svid(
  chain: readonly Buffer[],
  bundle: Bundle | ((trustDomain: TrustDomain) => Bundle | undefined),
  now: number,
  revocation?: CheckRevocation,
): VerifiedX509Svid {
  const [first, ...rest] = chain;
  if (first === undefined) throw refused('its chain is empty');
  if (chain.length > certificateLimits.chain)
    throw refused(`its chain holds ${chain.length} certificates; at most ${certificateLimits.chain} are read`);
  const leaf = parseCertificate(first);
  const id = checkLeaf(leaf);
  const trustDomain = trustDomainOf(id);
  const trusted = typeof bundle === 'function' ? bundle(trustDomain) : bundle;
  if (trusted === undefined || trusted.trustDomain !== trustDomain)
    throw refused(`no bundle of its trust domain ${quote(trustDomain)} is held`);
  const roots = trusted.x509Authorities.flatMap((authority) => authorityCertificate(authority) ?? []);
  if (roots.length === 0)
    throw refused(`the bundle of its trust domain ${quote(trustDomain)} holds no X.509 authority`);
  const path = verifyChain(leaf, rest.map(parseCertificate), roots, now);
  revocation?.(path);
  return { id, leaf, path };
}

const parsed = new WeakMap<X509Authority, Certificate | null>();

/** The certificate of an authority, parsed once; undefined where it cannot be read, so that it is never trusted. */
export function authorityCertificate(authority: X509Authority): Certificate | undefined {
  let certificate = parsed.get(authority);
  if (certificate === undefined) {
    try {
      certificate = parseCertificate(authority.certificate);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      certificate = null;
    }
    parsed.set(authority, certificate);
  }
  return certificate ?? undefined;
}

/**
 * What is wrong with a certificate as the output of an issuer, each as a requirement's id and a sentence: more than a
 * validator asks. Empty when it is as it must be.
 */
export function lintX509Svid(certificate: Certificate): string[] {
  const problems: string[] = [];
  const check = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const { keyUsage, extendedKeyUsage, uris, isCa } = certificate;
  const usage = keyUsage ?? 0;
  check(isCa ? uris.length <= 1 : uris.length === 1, 'X509-1: it needs exactly one URI name');
  for (const uri of uris) {
    try {
      const path = pathOf(parseId(uri));
      check(
        isCa ? path === '' : path !== '',
        isCa ? 'X509-8: the ID of an authority has no path' : 'X509-4: the ID of a leaf has a path',
      );
    } catch {
      problems.push('X509-1: its URI name is no SPIFFE ID');
    }
  }
  // A Name that is the empty SEQUENCE, 30 00.
  check(
    certificate.subject.length > 2 || certificate.sanCritical,
    'X509-5: with an empty subject the alternative name is critical',
  );
  check(
    certificate.hasBasicConstraints,
    isCa ? 'X509-6: it needs basic constraints' : 'X509-12: it needs basic constraints',
  );
  check(keyUsage !== undefined && certificate.keyUsageCritical, 'X509-15: key usage is there and critical');
  if (isCa) {
    check((usage & KeyUsage.keyCertSign) !== 0, 'X509-16: an authority may sign certificates');
    const forLeaves = KeyUsage.digitalSignature | KeyUsage.keyEncipherment | KeyUsage.keyAgreement;
    check((usage & forLeaves) === 0, 'X509-32: an authority does nothing but sign certificates and revocation lists');
    return problems;
  }
  check((usage & KeyUsage.digitalSignature) !== 0, 'X509-18: a leaf may make digital signatures');
  check(
    (usage & (KeyUsage.keyCertSign | KeyUsage.cRLSign)) === 0,
    'X509-20: a leaf signs neither certificates nor revocation lists',
  );
  check(extendedKeyUsage !== undefined, 'X509-21: a leaf has an extended key usage');
  const both =
    extendedKeyUsage === undefined ||
    Object.values(extendedKeyUsages).every((wanted) => extendedKeyUsage.includes(wanted));
  check(both, 'X509-22: the extended key usage names servers and clients');
  return problems;
}

function idOf(uri: string): SpiffeId {
  try {
    return parseId(uri);
  } catch (error) {
    throw refused(error instanceof Fault ? error.message : String(error), error);
  }
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('svid/invalid', `X.509-SVID is not valid: ${why}`, { cause });
}
