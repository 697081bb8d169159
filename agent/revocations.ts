/**
 * What the server says is revoked: a list for each X.509 authority of the own trust domain, and denied tokens. Told
 * whole, held whole, and kept on disk, so that an agent which starts without its server refuses what it did before.
 */
import { authorityId } from '../src/crypto/certificate.ts';
import { type Crl, parseCrl } from '../src/crypto/crl.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { parseId } from '../src/spiffe/id.ts';
import {
  type CheckRevocation,
  type DeniedToken,
  type DeniedTokens,
  deniedTokens,
  revokedBy,
} from '../src/spiffe/revocation.ts';
import { authorityCertificate } from '../src/spiffe/x509-svid.ts';
import { caps, tooMany } from './authorized.ts';

export interface Revocations {
  readonly crls: readonly Crl[];
  /** The lists as they came, DER; the same array for as long as nothing changes. */
  readonly ders: readonly Buffer[];
  readonly denied: readonly DeniedToken[];
  readonly tokens: DeniedTokens;
  readonly check: CheckRevocation;
}

/** mutual.server.v1.DeniedToken as it comes. */
export interface WireDeniedToken {
  readonly jti: string;
  readonly spiffe_id: string;
  readonly issued_by: string;
  readonly until: string;
}

export function revocations(ders: readonly Buffer[], denied: readonly DeniedToken[]): Revocations {
  const crls = ders.map(parseCrl);
  return { crls, ders, denied, tokens: deniedTokens(denied), check: revokedBy(() => crls) };
}
export const nothingRevoked = revocations([], []);

/** Reads what a group told. Throws `der/invalid`, `id/invalid`, or `limit/exceeded` when it is more than is taken. */
export function readRevocations(crls: readonly Buffer[], denied: readonly WireDeniedToken[]): Revocations {
  if (crls.length > caps.authorities) throw tooMany('revocation lists', crls.length, caps.authorities);
  if (denied.length > caps.deniedTokens) throw tooMany('denied tokens', denied.length, caps.deniedTokens);
  return revocations(
    crls.map((der) => Buffer.from(der)),
    denied.map((one) =>
      one.jti !== ''
        ? { until: Number(one.until), tokenId: one.jti }
        : { until: Number(one.until), subject: parseId(one.spiffe_id), issuedBy: Number(one.issued_by) },
    ),
  );
}

export function sameRevocations(one: Revocations, other: Revocations): boolean {
  return (
    one.ders.length === other.ders.length &&
    one.ders.every((der, at) => der.equals(other.ders[at]!)) &&
    JSON.stringify(one.denied) === JSON.stringify(other.denied)
  );
}

/** Whether a certificate with this serial stands in a list. */
export function isRevoked({ crls }: Revocations, serial: bigint): boolean {
  return crls.some((crl) => crl.revoked.has(serial));
}

/**
 * The lists for a verifier that refuses every certificate whose authority has none, as Envoy and OpenSSL do: all of
 * them when each authority of the bundle has one, else none, so that a server without lists breaks no connection.
 */
export function completeFor({ crls, ders }: Revocations, bundle: Bundle): readonly Buffer[] {
  const listed = new Set(crls.map(({ authorityKeyId }) => authorityKeyId?.toString('hex')));
  const complete = bundle.x509Authorities.every((authority) => {
    const certificate = authorityCertificate(authority);
    return certificate === undefined || listed.has(authorityId(certificate));
  });
  return complete ? ders : none;
}
const none: readonly Buffer[] = [];
