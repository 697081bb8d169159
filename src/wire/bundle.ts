/** spire.api.types.Bundle and BundleMask <-> our Bundle. */

import { createPublicKey } from 'node:crypto';
import { parseCertificate } from '../crypto/certificate.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle, JwtAuthority, X509Authority } from '../spiffe/bundle.ts';
import { parseTrustDomainOrId, type TrustDomain } from '../spiffe/id.ts';
import { wholeNumber } from './entry.ts';

export interface WireX509Authority {
  asn1: Uint8Array;
  tainted: boolean;
}

export interface WireJwtKey {
  public_key: Uint8Array;
  key_id: string;
  expires_at: string | number;
  tainted: boolean;
}

export interface WireBundle {
  trust_domain: string;
  x509_authorities: WireX509Authority[];
  jwt_authorities: WireJwtKey[];
  refresh_hint: string | number;
  sequence_number: string | number;
  wit_authorities?: WireJwtKey[];
}

export type BundleMask = Partial<Record<Exclude<keyof WireBundle, 'trust_domain'>, boolean>>;

export function jwtKeyToWire(key: JwtAuthority): WireJwtKey {
  return { public_key: key.publicKey, key_id: key.keyId, expires_at: key.expiresAt, tainted: key.tainted };
}

/** The wire form; with a mask only the trust domain and the fields set in it. */
export function bundleToWire(bundle: Bundle, mask?: BundleMask | null): Partial<WireBundle> {
  const wanted = (field: keyof BundleMask): boolean => !mask || mask[field] === true;
  return {
    trust_domain: bundle.trustDomain,
    ...(wanted('x509_authorities') && {
      x509_authorities: bundle.x509Authorities.map(({ certificate, tainted }) => ({ asn1: certificate, tainted })),
    }),
    ...(wanted('jwt_authorities') && { jwt_authorities: bundle.jwtAuthorities.map(jwtKeyToWire) }),
    ...(wanted('wit_authorities') && { wit_authorities: bundle.witAuthorities.map(jwtKeyToWire) }),
    ...(wanted('refresh_hint') && { refresh_hint: bundle.refreshHint }),
    ...(wanted('sequence_number') && { sequence_number: bundle.sequence.toString() }),
  };
}

/** Reads and checks every authority. Throws `bundle/invalid`, `id/invalid`. */
export function bundleFromWire(wire: WireBundle): Bundle {
  const trustDomain = parseTrustDomainOrId(wire.trust_domain);
  return {
    trustDomain,
    x509Authorities: x509AuthoritiesFromWire(wire.x509_authorities, trustDomain),
    jwtAuthorities: wire.jwt_authorities.map((key) => jwtKeyFromWire(key, trustDomain)),
    witAuthorities: (wire.wit_authorities ?? []).map((key) => jwtKeyFromWire(key, trustDomain)),
    refreshHint: wholeNumber(wire.refresh_hint, 'refresh hint'),
    sequence: BigInt(wire.sequence_number || 0),
  };
}

/** Each message may hold several certificates back to back in none of SPIRE's uses: exactly one is accepted. */
export function x509AuthoritiesFromWire(wire: readonly WireX509Authority[], trustDomain: TrustDomain): X509Authority[] {
  return wire.map(({ asn1, tainted }, index) => {
    const certificate = Buffer.from(asn1);
    try {
      parseCertificate(certificate);
    } catch (error) {
      throw new Fault(
        'bundle/invalid',
        `X.509 authority ${index} of trust domain ${quote(trustDomain)} is not one DER certificate: ${(error as Error).message}`,
        { cause: error },
      );
    }
    return { certificate, tainted };
  });
}

/** Throws `bundle/invalid`. */
export function jwtKeyFromWire(wire: WireJwtKey, trustDomain: TrustDomain): JwtAuthority {
  const what = `JWT authority ${quote(wire.key_id)} of trust domain ${quote(trustDomain)}`;
  if (wire.key_id === '') throw new Fault('bundle/invalid', `${what} has no key ID`);
  const publicKey = Buffer.from(wire.public_key);
  try {
    createPublicKey({ key: publicKey, format: 'der', type: 'spki' });
  } catch (error) {
    throw new Fault('bundle/invalid', `${what} is not a public key (PKIX DER)`, { cause: error });
  }
  return {
    keyId: wire.key_id,
    publicKey,
    expiresAt: wholeNumber(wire.expires_at, 'key expiry'),
    tainted: wire.tainted,
  };
}
