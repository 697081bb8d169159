/** spire.api.types.SPIFFEID and Selector <-> our values. */
import { Fault } from '../errors.ts';
import { makeId, parseTrustDomainOrId, pathOf, type SpiffeId, trustDomainOf } from '../spiffe/id.ts';
import { makeSelector, type Selector, selectorSet, selectorType, selectorValue } from '../spiffe/selector.ts';

export interface WireId {
  trust_domain: string;
  path: string;
}

export interface WireSelector {
  type: string;
  value: string;
}

export function idToWire(id: SpiffeId): WireId {
  return { trust_domain: trustDomainOf(id), path: pathOf(id) };
}

/**
 * Reads an ID of a request. The trust domain may be a name or an ID of the domain.
 * @param what the field, for the message. Throws `input/invalid` when absent and `id/invalid` when malformed.
 */
export function idFromWire(wire: WireId | null | undefined, what: string): SpiffeId {
  if (!wire || (wire.trust_domain === '' && wire.path === '')) throw new Fault('input/invalid', `${what} is missing`);
  return makeId(parseTrustDomainOrId(wire.trust_domain), wire.path);
}

export function selectorToWire(selector: Selector): WireSelector {
  return { type: selectorType(selector), value: selectorValue(selector) };
}

/** Reads selectors into their canonical order. Throws `input/invalid`. */
export function selectorsFromWire(wire: readonly WireSelector[] | null | undefined): readonly Selector[] {
  return selectorSet((wire ?? []).map(({ type, value }) => makeSelector(type, value)));
}
