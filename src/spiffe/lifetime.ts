/**
 * When things are renewed, as pure functions of times: all take and give milliseconds since the epoch, and none knows
 * what time it is. A renewal time is drawn once for each SVID (`unit` in [0, 1)), never again at each look: drawing anew
 * bunches the renewals of a fleet early.
 */

const hour = 3_600_000;
const day = 24 * hour;

/** A span of validity. */
export interface Validity {
  readonly notBefore: number;
  readonly notAfter: number;
}

/** How far before now an SVID begins, for clocks that are behind. */
export const backdate = 10_000;
/** The smallest availability target that an operator may ask for. */
export const leastAvailabilityTarget = day;
/** With an availability target, at least this much of a lifetime must lie before the renewal, or half life is used. */
const leastGrace = 12 * hour;
/** Renewals to an availability target are spread over this long before it. */
const targetSpread = 10 * 60_000;
/** Expired authorities stay in a bundle for this long. */
const bundleGrace = day;

/**
 * The validity of an SVID made at `now`: it begins a little earlier and never outlives its issuer.
 * @param ttl milliseconds
 */
export function svidValidity(now: number, ttl: number, issuerNotAfter: number): Validity {
  return { notBefore: now - backdate, notAfter: Math.min(now + ttl, issuerNotAfter) };
}

/**
 * When to renew an X.509-SVID: half its life before the end, give or take a tenth of that; with an availability target,
 * that long before the end and up to ten minutes earlier, provided that this leaves twelve hours first.
 * @param unit drawn once for the SVID, in [0, 1)
 * @param availabilityTarget how long an SVID shall last when no server can be reached, milliseconds
 */
export function renewAt({ notBefore, notAfter }: Validity, unit: number, availabilityTarget?: number): number {
  const lifetime = notAfter - notBefore;
  if (availabilityTarget !== undefined && lifetime - availabilityTarget > leastGrace) {
    return Math.round(notAfter - availabilityTarget - targetSpread * unit);
  }
  return Math.round(notAfter - (lifetime / 2) * (0.9 + 0.2 * unit));
}

/** When to ask for a new JWT-SVID: as `renewAt`, which has no availability target for tokens. */
export function jwtRenewAt(token: { readonly issuedAt: number; readonly expiresAt: number }, unit: number): number {
  return renewAt({ notBefore: token.issuedAt, notAfter: token.expiresAt }, unit);
}

/** When a server renews its own SVID: at half its life. */
export function serverRenewAt({ notBefore, notAfter }: Validity): number {
  return Math.round(notAfter - (notAfter - notBefore) / 2);
}

/** When to prepare the successor of an authority, X.509 or JWT: half its life before the end, at most 30 days. */
export function caPrepareAt({ notBefore, notAfter }: Validity): number {
  return Math.round(notAfter - Math.min((notAfter - notBefore) / 2, 30 * day));
}

/** When to activate the successor: a sixth of the life before the end, at most 7 days. */
export function caActivateAt({ notBefore, notAfter }: Validity): number {
  return Math.round(notAfter - Math.min((notAfter - notBefore) / 6, 7 * day));
}

/** The longest SVID that an authority of this lifetime can always give in full. Longer ones are cut near a rotation. */
export function longestSvidTtl(caTtl: number): number {
  return Math.min(caTtl / 6, 7 * day);
}

/** When an expired authority leaves the bundle. */
export function bundlePruneAt(expiresAt: number): number {
  return expiresAt + bundleGrace;
}
