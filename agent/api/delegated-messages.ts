/**
 * The messages of the Delegated Identity API, each encoded once for all who get it. The bundles are all that the agent
 * holds, and one that is gone from the agent is gone from the next message.
 */
import { messageCodec } from '../../src/rpc/load.ts';
import { type Encoded, encoded } from '../../src/rpc/serve.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { jwtKeySet } from '../../src/spiffe/bundle-jwks.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import { idToWire } from '../../src/wire/id.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import type { JwtSvid } from '../jwt-cache.ts';
import { byId, derAuthorities, hintsOf } from './messages.ts';
import { delegable } from './on-behalf.ts';

const service = 'spire.api.agent.delegatedidentity.v1';
const seconds = (ms: number): string => String(Math.floor(ms / 1000));

/** SubscribeToX509SVIDsResponse: every identity that has an SVID to serve, which may be none. */
export function delegatedX509Svids(cache: Cache, identities: Identities): Encoded {
  return identities.memo('delegated-x509-svids', () => {
    const entries = delegable(identities);
    const hints = hintsOf(entries);
    let until = Number.POSITIVE_INFINITY;
    const svids = entries.flatMap((entry) => {
      const svid = cache.svidFor(entry);
      if (svid === undefined) return [];
      until = Math.min(until, svid.notAfter);
      const wire = {
        cert_chain: svid.chain,
        id: idToWire(svid.id),
        expires_at: seconds(svid.notAfter),
        hint: hints.get(entry.id) ?? '',
      };
      return { x509_svid: wire, x509_svid_key: svid.pkcs8 };
    });
    const domains = new Set(entries.flatMap(({ federatesWith }) => federatesWith));
    const federated = [...domains].filter((domain) => cache.bundles.has(domain)).map(trustDomainId);
    const message = { x509_svids: svids, federates_with: federated.sort() };
    return { value: encoded(messageCodec(`${service}.SubscribeToX509SVIDsResponse`).encode(message)), until };
  });
}

/** FetchJWTSVIDsResponse, in the order of the entries. */
export function delegatedJwtSvids(entries: readonly AuthorizedEntry[], svids: readonly JwtSvid[]): object {
  const hints = hintsOf(entries);
  return {
    svids: svids.map(({ token, id, expiresAt, issuedAt }, index) => ({
      token,
      id: idToWire(id),
      expires_at: seconds(expiresAt),
      issued_at: seconds(issuedAt),
      hint: hints.get(entries[index]!.id) ?? '',
    })),
  };
}

export interface AllBundles {
  /** SubscribeToX509BundlesResponse. */
  x509(): Encoded;
  /** SubscribeToJWTBundlesResponse. */
  jwt(): Encoded;
}

/** Every bundle of the agent, encoded anew only when one of them is another. */
export function allBundles(cache: Cache): AllBundles {
  const kept = (encode: (bundles: readonly Bundle[]) => Buffer): (() => Encoded) => {
    let held: readonly Bundle[] = [];
    let message: Encoded | undefined;
    return () => {
      const isSame =
        held.length === cache.bundles.size && held.every((one) => cache.bundles.get(one.trustDomain) === one);
      if (message !== undefined && isSame) return message;
      held = [...cache.bundles.values()].sort((one, other) => (one.trustDomain < other.trustDomain ? -1 : 1));
      message = encoded(encode(held));
      return message;
    };
  };
  return {
    x509: kept((bundles) =>
      messageCodec(`${service}.SubscribeToX509BundlesResponse`).encode({
        ca_certificates: byId(bundles, derAuthorities),
      }),
    ),
    jwt: kept((bundles) =>
      messageCodec(`${service}.SubscribeToJWTBundlesResponse`).encode({
        bundles: byId(bundles, (bundle) => Buffer.from(jwtKeySet(bundle))),
      }),
    ),
  };
}
