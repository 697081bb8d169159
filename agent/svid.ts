/** X509-SVIDs as an agent holds them: read once from what a server issued, checked against what was asked for. */
import { authorityId, type Certificate, parseCertificate } from '../src/crypto/certificate.ts';
import { Fault, quote } from '../src/errors.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { SpiffeId } from '../src/spiffe/id.ts';
import { renewAt } from '../src/spiffe/lifetime.ts';
import { checkLeaf } from '../src/spiffe/x509-svid.ts';

/** The longest chain taken from a server, in certificates. */
const longestChain = 16;

/** A chain with its key: the agent's own, or a workload's. Times are Unix milliseconds. */
export interface HeldSvid {
  readonly id: SpiffeId;
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  /** The private key, PKCS#8 DER: what workloads are handed, and smaller to hold than a key object. */
  readonly pkcs8: Buffer;
  readonly notBefore: number;
  readonly notAfter: number;
  /** When to renew, drawn once: drawing again at each look would renew early and all at once. */
  readonly renewAt: number;
}

/** How renewal times are drawn. */
export interface RenewalDraw {
  /** In [0, 1), once for each SVID. */
  readonly unit: number;
  /** Milliseconds that an SVID must stay valid with the server away, when the operator asked for it. */
  readonly availabilityTarget?: number | undefined;
}

/**
 * Takes a chain that a server issued for `key`. Throws `svid/invalid` when it is not an SVID, is for another ID or
 * another key, or is too long.
 */
export function takeSvid(
  chain: readonly Buffer[],
  key: { pkcs8: Buffer; spki: Buffer },
  draw: RenewalDraw,
  expected?: SpiffeId,
): HeldSvid {
  const leaf = readLeaf(chain);
  const id = checkLeaf(leaf);
  if (expected !== undefined && id !== expected) {
    throw new Fault('svid/invalid', `the server issued an SVID for ${quote(id)}, not for ${quote(expected)}`);
  }
  if (!leaf.spki.equals(key.spki))
    throw new Fault('svid/invalid', `the SVID for ${quote(id)} is for another key than was asked for`);
  const { notBefore, notAfter } = leaf;
  return {
    id,
    chain: chain.map((certificate) => Buffer.from(certificate)),
    pkcs8: key.pkcs8,
    notBefore,
    notAfter,
    renewAt: renewAt({ notBefore, notAfter }, draw.unit, draw.availabilityTarget),
  };
}

/** The leaf of a chain. Throws `svid/invalid`. */
export function readLeaf(chain: readonly Buffer[]): Certificate {
  const [leaf] = chain;
  if (leaf === undefined) throw new Fault('svid/invalid', 'the server sent an SVID without a certificate');
  if (chain.length > longestChain)
    throw new Fault(
      'svid/invalid',
      `the server sent a chain of ${chain.length} certificates; at most ${longestChain} are taken`,
    );
  return parseCertificate(Buffer.from(leaf));
}

/** The newly tainted X.509 authorities of a bundle, as subject key ids (lower-case hex). Each is given once. */
export function taintedAuthorities(bundle: Bundle, handled: Set<string>): ReadonlySet<string> {
  const fresh = new Set<string>();
  for (const { certificate, tainted } of bundle.x509Authorities) {
    if (!tainted) continue;
    const id = authorityId(parseCertificate(certificate));
    if (!handled.has(id)) fresh.add(id);
    handled.add(id);
  }
  return fresh;
}

/** An SVID that is new and still below a tainted authority, since its server had no better one yet, is asked for again after this long, and up to as much later. */
const againAfter = 30_000;

/**
 * The SVID as it came, renewed soon when one of the tainted authorities is behind it.
 * @param now Unix milliseconds
 * @param unit drawn for the SVID, in [0, 1)
 */
export function soonerIfTainted(
  svid: HeldSvid,
  tainted: ReadonlySet<string>,
  { now, unit }: { now: number; unit: number },
): HeldSvid {
  if (tainted.size === 0 || !chainsTo(svid.chain, tainted)) return svid;
  return { ...svid, renewAt: Math.min(svid.renewAt, now + againAfter * (1 + unit)) };
}

/** Whether any certificate of a chain was signed by one of the authorities. */
export function chainsTo(chain: readonly Buffer[], authorities: ReadonlySet<string>): boolean {
  return chain.some((certificate) => {
    const signer = parseCertificate(certificate).authorityKeyId;
    return signer !== undefined && authorities.has(signer.toString('hex'));
  });
}
