/**
 * SPIFFE IDs and trust domain names, checked once and never normalised (SPIFFE-ID §2).
 * Values are plain strings with a brand: they compare with ===, are map keys as they stand, and cost nothing to hold.
 * Upper case is refused, not folded; `new URL()` is never used, since it rewrites what it reads.
 */
import { Fault, quote } from '../errors.ts';

declare const trustDomainBrand: unique symbol;
declare const idBrand: unique symbol;

/** A trust domain name, such as `example.org`. */
export type TrustDomain = string & { readonly [trustDomainBrand]: true };
/** A whole SPIFFE ID, such as `spiffe://example.org/web`. The path may be empty. */
export type SpiffeId = string & { readonly [idBrand]: true };

export const longestId = 2048;
const prefix = 'spiffe://';
const trustDomainShape = /^[a-z0-9._-]{1,255}$/;
const segmentShape = /^[A-Za-z0-9._-]+$/;

/** Reads a trust domain name (ID-4, ID-11). Throws `id/invalid`. */
export function parseTrustDomain(text: string): TrustDomain {
  if (trustDomainShape.test(text)) return text as TrustDomain;
  throw new Fault('id/invalid', `trust domain ${quote(text)} is not valid: ${trustDomainProblem(text)}`, {
    hint: 'Use 1 to 255 characters of a-z, 0-9, ".", "_" and "-", such as example.org.',
  });
}

/** Reads a trust domain as SPIRE's requests carry it: a name, or any SPIFFE ID of the domain. Throws `id/invalid`. */
export function parseTrustDomainOrId(text: string): TrustDomain {
  return text.startsWith(prefix) ? trustDomainOf(parseId(text)) : parseTrustDomain(text);
}

/** Reads a SPIFFE ID, with or without a path (ID-1 to ID-11). Throws `id/invalid`. */
export function parseId(text: string): SpiffeId {
  const problem = idProblem(text);
  if (problem === undefined) return text as SpiffeId;
  throw new Fault('id/invalid', `SPIFFE ID ${quote(text)} is not valid: ${problem}`, {
    hint: 'Write spiffe://TRUST-DOMAIN/PATH with path segments of A-Z, a-z, 0-9, ".", "_" and "-".',
  });
}

/** Puts an ID together from a message's two fields. Throws `id/invalid`. */
export function makeId(trustDomain: TrustDomain, path: string): SpiffeId {
  if (path !== '' && !path.startsWith('/')) {
    throw new Fault('id/invalid', `path ${quote(path)} is not valid: it must begin with "/"`);
  }
  return parseId(`${prefix}${trustDomain}${path}`);
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', prefix.length);
  return (slash < 0 ? id.slice(prefix.length) : id.slice(prefix.length, slash)) as TrustDomain;
}

/** The path with its leading slash, or the empty string. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', prefix.length);
  return slash < 0 ? '' : id.slice(slash);
}

/** The ID of the trust domain itself: `spiffe://example.org`. */
export function trustDomainId(trustDomain: TrustDomain): SpiffeId {
  return `${prefix}${trustDomain}` as SpiffeId;
}

export function isMemberOf(id: SpiffeId, trustDomain: TrustDomain): boolean {
  return trustDomainOf(id) === trustDomain;
}

/** `spiffe://td/spire/server`: whom agents expect at the other end. */
export function serverId(trustDomain: TrustDomain): SpiffeId {
  return `${prefix}${trustDomain}/spire/server` as SpiffeId;
}

/** Whether the path lies under `/spire/agent/`. */
export function isAgentId(id: SpiffeId): boolean {
  return pathOf(id).startsWith('/spire/agent/');
}

/** Whether the path is `/spire` or below it: not for workloads. */
export function isReserved(id: SpiffeId): boolean {
  const path = pathOf(id);
  return path === '/spire' || path.startsWith('/spire/');
}

/**
 * Checks that an ID may name a workload of `trustDomain`: it has a path and is not reserved. Throws `id/invalid`.
 * @param what the field's name, for the message
 */
export function requireWorkloadId(id: SpiffeId, trustDomain: TrustDomain, what: string): SpiffeId {
  const refuse = (why: string, hint: string): never => {
    throw new Fault('id/invalid', `${what} ${quote(id)} is not a workload of ${quote(trustDomain)}: ${why}`, { hint });
  };
  if (!isMemberOf(id, trustDomain)) {
    return refuse(`it belongs to trust domain ${quote(trustDomainOf(id))}`, `Use spiffe://${trustDomain}/...`);
  }
  if (pathOf(id) === '') return refuse('its path is empty', 'Give the workload a path, such as /web.');
  if (isReserved(id)) return refuse('paths under "/spire" are reserved', 'Choose a path outside /spire.');
  return id;
}

function idProblem(text: string): string | undefined {
  if (text === '') return 'it is empty';
  if (!text.startsWith(prefix)) return 'it does not begin with "spiffe://"';
  if (Buffer.byteLength(text) > longestId) return `it is longer than ${longestId} bytes`;
  const slash = text.indexOf('/', prefix.length);
  const authority = slash < 0 ? text.slice(prefix.length) : text.slice(prefix.length, slash);
  if (!trustDomainShape.test(authority)) return `trust domain ${quote(authority)}: ${trustDomainProblem(authority)}`;
  if (slash < 0) return undefined;
  for (const segment of text.slice(slash + 1).split('/')) {
    if (segment === '') return 'its path has an empty segment or ends in "/"';
    if (segment === '.' || segment === '..') return 'its path has a "." or ".." segment';
    if (!segmentShape.test(segment)) return `path segment ${quote(segment)} has a character outside A-Z a-z 0-9 . _ -`;
  }
  return undefined;
}

function trustDomainProblem(text: string): string {
  if (text === '') return 'it is empty';
  if (text.includes('/')) return 'it contains a "/"; give the name alone';
  if (text.includes('@')) return 'it contains a user name';
  if (text.includes(':')) return 'it contains a port or a ":"';
  if (text.includes('%')) return 'it is percent-encoded';
  if (Buffer.byteLength(text) > 255) return 'it is longer than 255 bytes';
  if (/[A-Z]/.test(text)) return 'it has an upper-case letter';
  return 'it has a character outside a-z 0-9 . _ -';
}
