/**
 * Name constraints (RFC 5280 §4.2.1.10), for the names SVIDs have: URIs and DNS names. A constraint on another kind of
 * name refuses every certificate that has a name of that kind, since nothing here could check it.
 */
import { type Cursor, close, invalid, open, peek, tag, takeContent, takeElement } from './der.ts';

export interface Subtree {
  /** The general name's tag: 0x86 URI, 0x82 DNS, anything else is not understood. */
  readonly kind: number;
  /** A host, `.domain`, or domain; empty for kinds not understood. */
  readonly base: string;
}
export interface NameConstraints {
  readonly permitted: readonly Subtree[];
  readonly excluded: readonly Subtree[];
}

/** The names of a certificate below the one that constrains. */
export interface ConstrainedNames {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Tags of its other alternative names. */
  readonly otherNames: readonly number[];
  /** Name, DER. */
  readonly subject: Buffer;
}

const uriKind = 0x86;
const dnsKind = 0x82;
const emailKind = 0x81;
const directoryKind = 0xa4;
const emailAttribute = Buffer.from([0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01]);

/** Reads the extension's value. Throws `der/invalid`. */
export function readNameConstraints(value: Cursor): NameConstraints {
  const inner = open(value, tag.sequence);
  const permitted = peek(inner) === 0xa0 ? readSubtrees(open(inner, 0xa0)) : [];
  const excluded = peek(inner) === 0xa1 ? readSubtrees(open(inner, 0xa1)) : [];
  close(inner);
  if (permitted.length + excluded.length === 0) throw invalid(value.what, 'its name constraints are empty');
  return { permitted, excluded };
}

function readSubtrees(list: Cursor): Subtree[] {
  const subtrees: Subtree[] = [];
  while (peek(list) >= 0) {
    if (subtrees.length === 256) throw invalid(list.what, 'it has more than 256 name constraints');
    const subtree = open(list, tag.sequence);
    const kind = peek(subtree);
    if (kind === uriKind || kind === dnsKind) {
      const base = takeContent(subtree, kind).toString('latin1').toLowerCase();
      if (!/^[\x21-\x7e]*$/.test(base)) throw invalid(list.what, 'a name constraint is not ASCII');
      subtrees.push({ kind, base });
    } else {
      takeElement(subtree);
      subtrees.push({ kind, base: '' });
    }
    // minimum and maximum: RFC 5280 has them 0 and absent, so that nothing may follow.
    close(subtree);
  }
  return subtrees;
}

/** Why the constraints refuse these names, or undefined when they allow them. */
export function constraintProblem(constraints: NameConstraints, names: ConstrainedNames): string | undefined {
  for (const uri of names.uris) {
    const problem = check(constraints, uriKind, hostOf(uri), uri);
    if (problem !== undefined) return problem;
  }
  for (const dnsName of names.dnsNames) {
    const problem = check(constraints, dnsKind, dnsName.toLowerCase(), dnsName);
    if (problem !== undefined) return problem;
  }
  for (const { kind } of [...constraints.permitted, ...constraints.excluded]) {
    if (kind === uriKind || kind === dnsKind) continue;
    const inSubject =
      (kind === directoryKind && names.subject.length > 2) ||
      (kind === emailKind && names.subject.includes(emailAttribute));
    if (inSubject || names.otherNames.includes(kind))
      return 'an issuer constrains names of a kind that cannot be checked';
  }
  return undefined;
}

function check(
  constraints: NameConstraints,
  kind: number,
  host: string | undefined,
  shown: string,
): string | undefined {
  const permitted = constraints.permitted.filter((subtree) => subtree.kind === kind);
  const excluded = constraints.excluded.filter((subtree) => subtree.kind === kind);
  if (permitted.length + excluded.length === 0) return undefined;
  if (host === undefined) return `an issuer constrains the host of URIs, and ${JSON.stringify(shown)} has none by name`;
  if (excluded.some(({ base }) => within(kind, host, base)))
    return `an issuer excludes the name ${JSON.stringify(shown)}`;
  if (permitted.length > 0 && !permitted.some(({ base }) => within(kind, host, base))) {
    return `an issuer does not permit the name ${JSON.stringify(shown)}`;
  }
  return undefined;
}

/** `.example.org` means below it; `example.org` means that host for a URI, that and all below for a DNS name. */
function within(kind: number, host: string, base: string): boolean {
  if (base === '') return true;
  if (base.startsWith('.')) return host.endsWith(base) && host.length > base.length;
  return host === base || (kind === dnsKind && host.endsWith(`.${base}`));
}

function hostOf(uri: string): string | undefined {
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)/.exec(uri)?.[1];
  const host = authority?.replace(/^.*@/, '').replace(/:\d*$/, '').toLowerCase();
  // RFC 5280: a URI whose host is missing or an address is refused where URIs are constrained.
  return host === undefined || host === '' || /^(\d+\.){3}\d+$|^\[/.test(host) ? undefined : host;
}
