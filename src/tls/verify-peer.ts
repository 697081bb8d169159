/** Whether the server at the other end of a connection is the one that was meant: by SPIFFE ID, never by host name. */
import { type Certificate, parseCertificate } from '../crypto/certificate.ts';
import { verifyChain } from '../crypto/chain.ts';
import { Fault, quote } from '../errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { CheckRevocation } from '../spiffe/revocation.ts';
import { checkLeaf } from '../spiffe/x509-svid.ts';

export interface ExpectedPeer {
  /** The one ID that is accepted. */
  readonly id: SpiffeId;
  /** DER of the authorities that may stand behind it; undefined accepts anybody's word (an insecure bootstrap). */
  readonly roots: readonly Buffer[] | undefined;
  readonly revocation?: CheckRevocation | undefined;
}

/**
 * Checks a presented chain, DER, leaf first, at `now` (Unix milliseconds), and gives the leaf. Throws `peer/untrusted`,
 * in whose message stands what was wrong.
 */
export function verifyPeer(chain: readonly Buffer[], expected: ExpectedPeer, now: number): Certificate {
  try {
    const [first, ...rest] = chain;
    if (first === undefined) throw new Fault('svid/invalid', 'it presented no certificate');
    const leaf = parseCertificate(first);
    const id = checkLeaf(leaf);
    if (id !== expected.id) throw new Fault('svid/invalid', `it is ${quote(id)}`);
    if (expected.roots !== undefined) {
      // By itself: as the argument of an optional call it would not run where nothing is asked about revocation.
      const path = verifyChain(leaf, rest.map(parseCertificate), expected.roots.map(parseCertificate), now);
      expected.revocation?.(path);
    }
    return leaf;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('peer/untrusted', `the other end did not prove to be ${quote(expected.id)}: ${error.message}`, {
      cause: error,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
}
