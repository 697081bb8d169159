/**
 * What the agent holds of its own trust domain's authorities, for its server to count: the ones it trusts, and whether it
 * still serves anything that a tainted one has signed.
 */
import { authorityId, parseCertificate } from '../src/crypto/certificate.ts';
import type { Bundle, JwtAuthority } from '../src/spiffe/bundle.ts';
import { authorityCertificate } from '../src/spiffe/x509-svid.ts';
import type { Cache } from './cache.ts';

export interface HeldAuthority {
  /** X.509: subject key id, lower-case hex. JWT and WIT: the `kid`. */
  readonly id: string;
  readonly tainted: boolean;
  /** Said of tainted ones only: an SVID that the agent presents or serves was signed by it. */
  readonly inUse: boolean;
}

export interface AgentHoldings {
  readonly bundleSequence: bigint;
  readonly x509: readonly HeldAuthority[];
  readonly jwt: readonly HeldAuthority[];
  readonly wit: readonly HeldAuthority[];
}

export interface HoldingsPorts {
  readonly cache: Cache;
  /** The chain of the agent's own SVID. */
  chain(): readonly Buffer[];
  /** Whether a token of either kind is kept that this key signed. */
  usesKey(keyId: string): boolean;
}

const signers = new WeakMap<readonly Buffer[], readonly string[]>();

/** The key ids of whoever signed the certificates of a chain, read once for each chain. */
function signersOf(chain: readonly Buffer[]): readonly string[] {
  let found = signers.get(chain);
  if (found === undefined) {
    found = chain.flatMap((certificate) => parseCertificate(certificate).authorityKeyId?.toString('hex') ?? []);
    signers.set(chain, found);
  }
  return found;
}

/** What the agent holds now. Cheap while nothing is tainted: then it is made once for each bundle. */
export function makeHoldings({ cache, chain, usesKey }: HoldingsPorts): () => AgentHoldings {
  const heldKey = ({ keyId: id, tainted }: JwtAuthority): HeldAuthority => ({
    id,
    tainted,
    inUse: tainted && usesKey(id),
  });
  let last: { bundle: Bundle; holdings: AgentHoldings } | undefined;
  return () => {
    const bundle = cache.ownBundle.value;
    if (last?.bundle === bundle) return last.holdings;
    const tainted = bundle.x509Authorities.some((one) => one.tainted);
    const used = new Set<string>();
    if (tainted) {
      for (const signer of signersOf(chain())) used.add(signer);
      for (const svid of cache.svids.values()) for (const signer of signersOf(svid.chain)) used.add(signer);
    }
    const holdings: AgentHoldings = {
      bundleSequence: bundle.sequence,
      x509: bundle.x509Authorities.flatMap((authority) => {
        const certificate = authorityCertificate(authority);
        if (certificate === undefined) return [];
        const id = authorityId(certificate);
        return [{ id, tainted: authority.tainted, inUse: authority.tainted && used.has(id) }];
      }),
      jwt: bundle.jwtAuthorities.map(heldKey),
      wit: bundle.witAuthorities.map(heldKey),
    };
    last = tainted || [...holdings.jwt, ...holdings.wit].some((one) => one.tainted) ? undefined : { bundle, holdings };
    return holdings;
  };
}
