/**
 * What was taken back before its time: certificates, by the lists of their authorities, and tokens, by their `jti` or by
 * subject and time of issue, for tokens that carry no `jti`.
 */
import type { Certificate } from '../crypto/certificate.ts';
import { type Crl, crlIsOf, crlVerifies } from '../crypto/crl.ts';
import { Fault, quote } from '../errors.ts';
import type { SpiffeId } from './id.ts';

/** Looks along a verified path, leaf first and authority last. Throws `svid/invalid` when something on it is revoked. */
export type CheckRevocation = (path: readonly Certificate[]) => void;

/**
 * A check against lists. A list counts when the authority on the path signed it, also past its next update: what was
 * revoked stays revoked. An authority of which no list is held revokes nothing.
 */
export function revokedBy(lists: () => readonly Crl[]): CheckRevocation {
  return (path) => {
    for (const [index, certificate] of path.entries()) {
      const issuer = path[index + 1];
      if (issuer === undefined) return;
      for (const list of lists()) {
        const revoked = crlIsOf(list, issuer) ? list.revoked.get(certificate.serial) : undefined;
        if (revoked === undefined || !believed(list, issuer)) continue;
        throw revokedCertificate(certificate.serial, revoked.revokedAt);
      }
    }
  };
}

/** A signature of a list is verified once for each authority it is asked of. */
const verified = new WeakMap<Crl, { readonly issuer: Buffer; readonly holds: boolean }>();
function believed(list: Crl, issuer: Certificate): boolean {
  const known = verified.get(list);
  if (known?.issuer.equals(issuer.der)) return known.holds;
  const holds = crlVerifies(list, issuer);
  verified.set(list, { issuer: issuer.der, holds });
  return holds;
}

export function revokedCertificate(serial: bigint | string, revokedAt: number): Fault {
  return new Fault(
    'svid/invalid',
    `X.509-SVID is not valid: serial ${serial} was revoked at ${new Date(revokedAt).toISOString()}`,
  );
}

/** One thing that a list of denied tokens says. */
export type DeniedToken = {
  /** Unix milliseconds: what it denies has expired by then. */
  readonly until: number;
} & (
  | { readonly tokenId: string }
  /** Tokens of this subject issued in the second of `issuedBy` (Unix milliseconds) or earlier. */
  | { readonly subject: SpiffeId; readonly issuedBy: number }
);

export interface DeniedTokens {
  readonly size: number;
  /** Throws `svid/invalid` for a token that is denied. @param claims as verified */
  check(id: SpiffeId, claims: { readonly [name: string]: unknown }): void;
  /** Whether a token of this subject, issued then (Unix milliseconds), is denied. */
  denies(id: SpiffeId, issuedAt: number): boolean;
}

export function deniedTokens(list: readonly DeniedToken[]): DeniedTokens {
  const ids = new Set<string>();
  const subjects = new Map<SpiffeId, number>();
  for (const one of list) {
    if ('tokenId' in one) ids.add(one.tokenId);
    else subjects.set(one.subject, Math.max(subjects.get(one.subject) ?? 0, one.issuedBy));
  }
  const denies = (id: SpiffeId, issuedAt: number): boolean =>
    Math.floor(issuedAt / 1000) * 1000 <= (subjects.get(id) ?? -1);
  return {
    size: list.length,
    denies,
    check(id, { jti, iat }) {
      if (typeof jti === 'string' && ids.has(jti)) throw revokedToken(`its jti ${quote(jti)} was revoked`);
      // One that does not say when it was issued may be one of those meant.
      if (denies(id, typeof iat === 'number' ? iat * 1000 : 0))
        throw revokedToken(
          `what ${quote(id)} was issued up to ${new Date(subjects.get(id)!).toISOString()} was revoked`,
        );
    },
  };
}

function revokedToken(why: string): Fault {
  return new Fault('svid/invalid', `JWT-SVID is not valid: ${why}`);
}
