/**
 * Certificate revocation lists (RFC 5280 §5): full lists of version 2, written as bytes and read strictly. Whether a list
 * is believed is asked with `crlVerifies`; whether it says anything of a certificate, in `src/spiffe/revocation.ts`.
 */
import { Fault } from '../errors.ts';
import { type Certificate, KeyUsage } from './certificate.ts';
import { extension, type Issuer } from './certificate-writer.ts';
import {
  bitString,
  close,
  derCursor,
  integer,
  invalid,
  open,
  openInside,
  peek,
  sequence,
  tag,
  takeBits,
  takeBoolean,
  takeContent,
  takeElement,
  takeObjectId,
  takeSmall,
  takeTime,
  takeUnsigned,
  time,
} from './der.ts';
import { verifySignature } from './signature.ts';

export interface RevokedCertificate {
  readonly serial: bigint;
  /** Milliseconds since the epoch. */
  readonly revokedAt: number;
}

export interface Crl {
  readonly der: Buffer;
  /** The signed part, header included. */
  readonly tbs: Buffer;
  /** Name, DER. */
  readonly issuer: Buffer;
  readonly authorityKeyId: Buffer | undefined;
  readonly number: bigint;
  /** Milliseconds since the epoch. */
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  readonly revoked: ReadonlyMap<bigint, RevokedCertificate>;
  /** AlgorithmIdentifier, DER. */
  readonly signatureAlgorithm: Buffer;
  readonly signature: Buffer;
}

export interface CrlParts {
  /** Rises with every list of an authority (RFC 5280 §5.2.3). */
  readonly number: bigint;
  /** Milliseconds since the epoch; fractions of seconds are dropped. */
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  readonly revoked: readonly RevokedCertificate[];
}

/** Bytes of the largest list that is read: about 100,000 certificates. */
export const largestCrl = 4 << 20;
const what = 'revocation list';

/** Writes a list around the signature that `sign` makes over its signed part (DER for ECDSA). Serials are sorted. */
export async function writeCrl(
  issuer: Issuer,
  parts: CrlParts,
  sign: (tbs: Buffer) => Buffer | Promise<Buffer>,
): Promise<Buffer> {
  const serials = [...parts.revoked].sort((a, b) => (a.serial < b.serial ? -1 : a.serial > b.serial ? 1 : 0));
  const entries = serials.map(({ serial, revokedAt }) => sequence(integer(serial), time(revokedAt)));
  const tbs = sequence(
    integer(1),
    issuer.algorithm,
    issuer.name,
    time(parts.thisUpdate),
    time(parts.nextUpdate),
    // An empty list is left out, not written as an empty sequence (§5.1.2.6).
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    tlvExtensions(issuer, parts.number),
  );
  return sequence(tbs, issuer.algorithm, bitString(await sign(tbs)));
}

function tlvExtensions(issuer: Issuer, number: bigint): Buffer {
  const list = sequence(issuer.authorityKeyId, extension('2.5.29.20', false, integer(number)));
  // [0] EXPLICIT.
  const header = list.length < 0x80 ? Buffer.of(0xa0, list.length) : Buffer.of(0xa0, 0x81, list.length);
  return Buffer.concat([header, list]);
}

/** Reads one list; nothing may follow it. Throws `der/invalid`, also for delta and partial lists, which are not known. */
export function parseCrl(der: Buffer): Crl {
  const whole = derCursor(der, what, largestCrl);
  const outer = open(whole, tag.sequence);
  close(whole);
  const tbs = takeElement(outer, tag.sequence);
  const signatureAlgorithm = takeElement(outer, tag.sequence);
  const signature = takeBits(outer);
  close(outer);

  const body = open(derCursor(tbs, what, largestCrl), tag.sequence);
  if (takeSmall(body) !== 1) throw invalid(what, 'its version is not 2');
  if (!takeElement(body, tag.sequence).equals(signatureAlgorithm))
    throw invalid(what, 'it names two different signature algorithms');
  const issuer = takeElement(body, tag.sequence);
  const thisUpdate = takeTime(body);
  const nextUpdate = takeTime(body);
  const revoked = new Map<bigint, RevokedCertificate>();
  if (peek(body) === tag.sequence) {
    const list = open(body, tag.sequence);
    if (peek(list) < 0) throw invalid(what, 'its list of certificates is written though it is empty');
    while (peek(list) >= 0) {
      const one = open(list, tag.sequence);
      const serial = BigInt(`0x${takeUnsigned(one, 20).toString('hex')}`);
      const revokedAt = takeTime(one);
      if (peek(one) === tag.sequence) refuseCritical(openInside(one, takeContent(one, tag.sequence)));
      close(one);
      if (revoked.has(serial)) throw invalid(what, `serial ${serial} is there twice`);
      revoked.set(serial, { serial, revokedAt });
    }
  }
  const explicit = open(body, 0xa0);
  close(body);
  const extensions = openInside(explicit, takeContent(explicit, tag.sequence));
  close(explicit);
  let number: bigint | undefined;
  let authorityKeyId: Buffer | undefined;
  while (peek(extensions) >= 0) {
    const one = open(extensions, tag.sequence);
    const id = takeObjectId(one);
    const critical = peek(one) === tag.boolean && takeBoolean(one);
    const value = takeContent(one, tag.octetString);
    close(one);
    const inside = openInside(one, value);
    if (id === '2.5.29.20') number = BigInt(`0x${takeUnsigned(inside, 20).toString('hex')}`);
    else if (id === '2.5.29.35') {
      const names = open(inside, tag.sequence);
      if (peek(names) === 0x80) authorityKeyId = takeContent(names, 0x80);
    } else if (critical) throw invalid(what, `its critical extension ${id} is not understood`);
  }
  if (number === undefined) throw invalid(what, 'it has no number');
  return { der, tbs, issuer, authorityKeyId, number, thisUpdate, nextUpdate, revoked, signatureAlgorithm, signature };
}

/** An entry's extension that changes what it means (an indirect list's issuer) makes the list one that is not known. */
function refuseCritical(extensions: ReturnType<typeof openInside>): void {
  while (peek(extensions) >= 0) {
    const one = open(extensions, tag.sequence);
    const id = takeObjectId(one);
    if (peek(one) === tag.boolean && takeBoolean(one))
      throw invalid(what, `the critical extension ${id} of an entry is not understood`);
    takeContent(one, tag.octetString);
    close(one);
  }
}

/** Whether the list is of this authority: name and key identifier agree, it may sign lists, and the signature verifies. */
export function crlVerifies(crl: Crl, issuer: Certificate): boolean {
  if (!crlIsOf(crl, issuer)) return false;
  if (issuer.keyUsage !== undefined && (issuer.keyUsage & KeyUsage.cRLSign) === 0) return false;
  try {
    return verifySignature(crl.signatureAlgorithm, issuer.key, issuer.publicKey, crl.tbs, crl.signature);
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** The cheap half of `crlVerifies`. */
export function crlIsOf({ issuer, authorityKeyId }: Crl, authority: Certificate): boolean {
  if (!issuer.equals(authority.subject)) return false;
  return (
    authorityKeyId === undefined ||
    authority.subjectKeyId === undefined ||
    authorityKeyId.equals(authority.subjectKeyId)
  );
}
