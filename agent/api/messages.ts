/**
 * The Workload API's messages, made from what the cache holds and encoded once for each change and set of entries, not for
 * each call. The Broker API's have the same fields with the same numbers (proto/broker.proto). Several identities with one hint: the oldest keeps it and the others are sent without (WA-20).
 */

import { messageCodec } from '../../src/rpc/load.ts';
import { type Encoded, encoded } from '../../src/rpc/serve.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { jwtKeySet, witKeySet } from '../../src/spiffe/bundle-jwks.ts';
import { type SpiffeId, trustDomainId } from '../../src/spiffe/id.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import type { JwtSvid } from '../jwt-cache.ts';
import type { WitSvid } from '../wit-cache.ts';
import { claimsToStruct } from './claims.ts';

/** Of identities, what messages are made of. */
export type Material = Pick<Identities, 'entries' | 'federated' | 'memo'>;

/** The longest hint that is passed on, bytes (WA-22). */
const longestHint = 1_024;

/** Encoding parts by themselves needs no new rule: protobuf reads concatenated messages as one. */
const codec = (name: string) => {
  let made: ReturnType<typeof messageCodec> | undefined;
  return (message: object): Buffer => {
    made ??= messageCodec(name);
    return made.encode(message);
  };
};
const encodeX509Svids = codec('X509SVIDResponse');
const encodeX509Bundles = codec('X509BundlesResponse');
const encodeJwtSvids = codec('JWTSVIDResponse');
const encodeJwtBundles = codec('JWTBundlesResponse');
const encodeWitSvids = codec('WITSVIDResponse');
const encodeWitBundles = codec('WITBundlesResponse');
const encodeValidation = codec('ValidateJWTSVIDResponse');

/**
 * X509SVIDResponse with every identity that has an SVID to serve, in order; undefined when none has.
 * @param now Unix milliseconds
 */
export function x509Svids(cache: Cache, identities: Material, now: number): Encoded | undefined {
  return identities.memo('x509-svids', () => {
    const bundle = derAuthorities(cache.ownBundle.value);
    const hints = hintsOf(identities.entries);
    let until = Number.POSITIVE_INFINITY;
    const svids = identities.entries.flatMap((entry) => {
      const svid = cache.svidFor(entry);
      if (svid === undefined) return [];
      until = Math.min(until, svid.notAfter);
      return {
        spiffe_id: svid.id,
        x509_svid: Buffer.concat(svid.chain),
        x509_svid_key: svid.pkcs8,
        bundle,
        hint: hints.get(entry.id) ?? '',
      };
    });
    if (svids.length === 0) return { value: undefined, until: now };
    return {
      value: encoded(
        encodeX509Svids({
          svids,
          crl: cache.revocations.value.ders,
          federated_bundles: byId(identities.federated, derAuthorities),
        }),
      ),
      until,
    };
  });
}

/** X509BundlesResponse: the own trust domain's and those that the entries federate with (WA-26). */
export function x509Bundles(cache: Cache, identities: Material): Encoded {
  return identities.memo('x509-bundles', () => {
    const bundles = byId([cache.ownBundle.value, ...identities.federated], derAuthorities);
    const crl = cache.revocations.value.ders;
    return { value: encoded(encodeX509Bundles({ crl, bundles })), until: Number.POSITIVE_INFINITY };
  });
}

/** JWTBundlesResponse, each a JWK Set with the JWT keys alone (WA-31). */
export function jwtBundles(cache: Cache, identities: Material): Encoded {
  return identities.memo('jwt-bundles', () => {
    const bundles = byId([cache.ownBundle.value, ...identities.federated], (bundle) => Buffer.from(jwtKeySet(bundle)));
    return { value: encoded(encodeJwtBundles({ bundles })), until: Number.POSITIVE_INFINITY };
  });
}

/** JWTSVIDResponse. */
export const jwtSvids = tokens<JwtSvid>(({ id, token }, hint) =>
  encodeJwtSvids({ svids: [{ spiffe_id: id, svid: token, hint }] }),
);

/** WITSVIDResponse. */
export const witSvids = tokens<WitSvid>(({ id, token, key }, hint) =>
  encodeWitSvids({ svids: [{ spiffe_id: id, wit_svid: token, wit_svid_key: key, hint }] }),
);

/** Puts together what each token was encoded to when it first left. */
function tokens<Svid extends object>(
  encodeOne: (svid: Svid, hint: string) => Buffer,
): (found: readonly { readonly svid: Svid; readonly hint: string }[]) => Encoded {
  const encodedTokens = new WeakMap<Svid, { readonly hint: string; readonly part: Encoded }>();
  return (found) => {
    const parts = found.map(({ svid, hint }) => {
      const kept = encodedTokens.get(svid);
      if (kept?.hint === hint) return kept.part;
      const part = encoded(encodeOne(svid, hint));
      encodedTokens.set(svid, { hint, part });
      return part;
    });
    return parts.length === 1 ? parts[0]! : encoded(Buffer.concat(parts.map(({ bytes }) => bytes)));
  };
}

/** WITBundlesResponse, each a JWK Set with the WIT keys alone (WA-37). */
export function witBundles(cache: Cache, identities: Identities): Encoded {
  return identities.memo('wit-bundles', () => {
    const bundles = byId([cache.ownBundle.value, ...identities.federated], witKeySet);
    return { value: encoded(encodeWitBundles({ bundles })), until: Number.POSITIVE_INFINITY };
  });
}

/** ValidateJWTSVIDResponse. */
export function validation(id: SpiffeId, claims: Readonly<Record<string, unknown>>): Encoded {
  return encoded(encodeValidation({ spiffe_id: id, claims: claimsToStruct(claims) }));
}

/** The hint each entry is sent with; entries come oldest first. */
export function hintsOf(entries: readonly AuthorizedEntry[]): ReadonlyMap<string, string> {
  const taken = new Set<string>();
  const hints = new Map<string, string>();
  for (const { id, hint } of entries) {
    if (hint === '' || taken.has(hint) || Buffer.byteLength(hint) > longestHint) continue;
    taken.add(hint);
    hints.set(id, hint);
  }
  return hints;
}

/** Certificates back to back, which is how several stand in one `bytes` (WA-19). */
export const derAuthorities = (bundle: Bundle): Buffer =>
  Buffer.concat(bundle.x509Authorities.map(({ certificate }) => certificate));

/** A map keyed by the trust domain's ID; a bundle without any key of the kind stays, empty: nothing of it is trusted. */
export function byId<T>(bundles: readonly Bundle[], form: (bundle: Bundle) => T): Record<string, T> {
  return Object.fromEntries(bundles.map((bundle) => [trustDomainId(bundle.trustDomain), form(bundle)]));
}
