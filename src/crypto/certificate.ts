/**
 * X.509 certificates, parsed strictly into one immutable value (RFC 5280 §4). Parsing does no arithmetic: the public key
 * is made when first asked for. Whether a certificate may be trusted is asked elsewhere (`chain.ts`, `x509-svid.ts`).
 */
import type { KeyObject } from 'node:crypto';
import { hash } from 'node:crypto';
import { Fault } from '../errors.ts';
import { type DescribedKey, describeSpki, publicKeyOf } from './algorithms.ts';
import { commonNameOf, mostNames, readGeneralNames } from './certificate-names.ts';
import {
  type Cursor,
  close,
  derCursor,
  invalid,
  open,
  openInside,
  peek,
  tag,
  takeBits,
  takeBoolean,
  takeContent,
  takeElement,
  takeNamedBits,
  takeObjectId,
  takeSmall,
  takeTime,
  takeUnsigned,
} from './der.ts';
import { type NameConstraints, readNameConstraints } from './name-constraints.ts';
import { verifySignature } from './signature.ts';

/** Key usage flags (RFC 5280 §4.2.1.3): bit n of the standard is `1 << n`. */
export const KeyUsage = {
  digitalSignature: 1 << 0,
  contentCommitment: 1 << 1,
  keyEncipherment: 1 << 2,
  dataEncipherment: 1 << 3,
  keyAgreement: 1 << 4,
  keyCertSign: 1 << 5,
  cRLSign: 1 << 6,
  encipherOnly: 1 << 7,
  decipherOnly: 1 << 8,
} as const;

export const extendedKeyUsages = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;

export interface Certificate {
  readonly der: Buffer;
  /** The signed part, header included. */
  readonly tbs: Buffer;
  readonly serial: bigint;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  /** Milliseconds since the epoch; the certificate is valid through this second. */
  readonly notAfter: number;
  /** Names as DER, compared byte by byte. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** The last CN of the subject. */
  readonly commonName: string | undefined;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  /** The key's algorithm, size and bits, read without arithmetic. Throws `der/invalid` for a key of a kind not known. */
  readonly key: DescribedKey;
  /** Made when first asked for. Throws `der/invalid`. */
  readonly publicKey: KeyObject;
  readonly isCa: boolean;
  readonly hasBasicConstraints: boolean;
  readonly pathLength: number | undefined;
  /** Flags of `KeyUsage`; undefined when the extension is absent. */
  readonly keyUsage: number | undefined;
  readonly keyUsageCritical: boolean;
  /** Object identifiers in dotted form. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectKeyId: Buffer | undefined;
  readonly authorityKeyId: Buffer | undefined;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Tags of the alternative names that are neither URI nor DNS name, such as 0x87 for an IP address. */
  readonly otherNames: readonly number[];
  readonly sanCritical: boolean;
  readonly nameConstraints: NameConstraints | undefined;
  /** Extensions marked critical which nothing here understands; a chain holding one is refused. */
  readonly unknownCritical: readonly string[];
  /** All extensions in order: dotted identifier, criticality and content, for what is not read here. */
  readonly extensions: readonly Extension[];
  /** AlgorithmIdentifier, DER. */
  readonly signatureAlgorithm: Buffer;
  readonly signature: Buffer;
}

export interface Extension {
  readonly id: string;
  readonly critical: boolean;
  readonly value: Buffer;
}

/** Largest certificate, bytes, and longest chain; both checked before anything is parsed. */
export const certificateLimits = { bytes: 65_536, chain: 16, names: mostNames, extensions: 64 } as const;

const what = 'certificate';

type Fields = { -readonly [Key in keyof Certificate]: Certificate[Key] };

/** Parses one certificate; nothing may follow it. Throws `der/invalid`. */
export function parseCertificate(der: Buffer): Certificate {
  const whole = derCursor(der, what, certificateLimits.bytes);
  const outer = open(whole, tag.sequence);
  close(whole);
  const tbs = takeElement(outer, tag.sequence);
  const signatureAlgorithm = takeElement(outer, tag.sequence);
  const signature = takeBits(outer);
  close(outer);

  const body = open(derCursor(tbs, what), tag.sequence);
  let version = 1;
  if (peek(body) === 0xa0) {
    const explicit = open(body, 0xa0);
    version = takeSmall(explicit) + 1;
    close(explicit);
    if (version !== 3) throw invalid(what, `version ${version} is not written as DER or not known`);
  }
  const serial = BigInt(`0x${takeUnsigned(body, 20).toString('hex')}`);
  if (!takeElement(body, tag.sequence).equals(signatureAlgorithm))
    throw invalid(what, 'it names two different signature algorithms');
  const issuer = takeElement(body, tag.sequence);
  const validity = open(body, tag.sequence);
  const notBefore = takeTime(validity);
  const notAfter = takeTime(validity);
  close(validity);
  const subject = takeElement(body, tag.sequence);
  const spki = takeElement(body, tag.sequence);

  let key: DescribedKey | undefined;
  let publicKey: KeyObject | undefined;
  const fields: Fields = {
    der,
    tbs,
    serial,
    notBefore,
    notAfter,
    issuer,
    subject,
    commonName: commonNameOf(subject, what),
    spki,
    signatureAlgorithm,
    signature,
    isCa: false,
    hasBasicConstraints: false,
    pathLength: undefined,
    keyUsage: undefined,
    keyUsageCritical: false,
    extendedKeyUsage: undefined,
    subjectKeyId: undefined,
    authorityKeyId: undefined,
    uris: [],
    dnsNames: [],
    otherNames: [],
    sanCritical: false,
    nameConstraints: undefined,
    unknownCritical: [],
    extensions: [],
    get key() {
      key ??= describeSpki(spki, 'certificate key');
      return key;
    },
    get publicKey() {
      // The description comes first: what it refuses never reaches the library.
      key ??= describeSpki(spki, 'certificate key');
      publicKey ??= publicKeyOf(spki, 'certificate key');
      return publicKey;
    },
  };
  commonNameOf(issuer, what);
  if (peek(body) === 0xa3) {
    if (version !== 3) throw invalid(what, 'only version 3 has extensions');
    const explicit = open(body, 0xa3);
    readExtensions(explicit, fields);
    close(explicit);
  }
  close(body);
  return fields;
}

/**
 * Splits back-to-back DER objects, as the Workload API carries chains and bundles (WA-17). Gives [] for no bytes.
 * Throws `der/invalid`, also when there are more than `most`.
 */
export function splitCertificates(der: Buffer, most: number = certificateLimits.chain): Buffer[] {
  const cursor = derCursor(der, 'certificate list', most * certificateLimits.bytes);
  const found: Buffer[] = [];
  while (peek(cursor) >= 0) {
    if (found.length === most) throw invalid('certificate list', `it holds more than ${most} certificates`);
    found.push(takeElement(cursor, tag.sequence));
  }
  return found;
}

/**
 * Whether `issuer` issued `certificate`: the names agree, the key identifiers agree where both are there, and then the
 * signature verifies. Says nothing of whether the issuer was allowed to.
 */
export function isSignedBy(certificate: Certificate, issuer: Certificate): boolean {
  return couldBeIssuer(certificate, issuer) && signatureVerifies(certificate, issuer);
}

/** The cheap half of `isSignedBy`. */
export function couldBeIssuer(certificate: Certificate, issuer: Certificate): boolean {
  if (!certificate.issuer.equals(issuer.subject)) return false;
  const { authorityKeyId } = certificate;
  const { subjectKeyId } = issuer;
  return authorityKeyId === undefined || subjectKeyId === undefined || authorityKeyId.equals(subjectKeyId);
}

/** The costly half of `isSignedBy`. */
export function signatureVerifies(certificate: Certificate, issuer: Certificate): boolean {
  try {
    return verifySignature(
      certificate.signatureAlgorithm,
      issuer.key,
      issuer.publicKey,
      certificate.tbs,
      certificate.signature,
    );
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** How an X.509 authority is named: its subject key identifier as lower-case hex, computed where the extension is absent. */
export function authorityId(certificate: Certificate): string {
  return (certificate.subjectKeyId ?? hash('sha1', certificate.key.keyBits, 'buffer')).toString('hex');
}

function readExtensions(explicit: Cursor, fields: Fields): void {
  const list = open(explicit, tag.sequence);
  const seen = new Set<string>();
  const extensions: Extension[] = [];
  const unknownCritical: string[] = [];
  if (peek(list) < 0) throw invalid(what, 'its list of extensions is empty');
  while (peek(list) >= 0) {
    if (seen.size === certificateLimits.extensions)
      throw invalid(what, `it has more than ${certificateLimits.extensions} extensions`);
    const extension = open(list, tag.sequence);
    const id = takeObjectId(extension);
    const critical = peek(extension) === tag.boolean;
    // DEFAULT FALSE: a FALSE that is written out is not DER.
    if (critical && !takeBoolean(extension))
      throw invalid(what, `extension ${id} writes out a FALSE, which is not DER`);
    const value = takeContent(extension, tag.octetString);
    close(extension);
    if (seen.has(id)) throw invalid(what, `extension ${id} is there twice`);
    seen.add(id);
    extensions.push({ id, critical, value });
    const read = readers[id];
    if (read !== undefined) read(openInside(extension, value), critical, fields);
    else if (critical) unknownCritical.push(id);
  }
  close(list);
  fields.extensions = extensions;
  fields.unknownCritical = unknownCritical;
}

/** The extensions understood, by identifier. */
const readers: Readonly<Record<string, (value: Cursor, critical: boolean, fields: Fields) => void>> = {
  '2.5.29.14'(value, _critical, fields) {
    fields.subjectKeyId = keyIdentifier(takeContent(value, tag.octetString));
    close(value);
  },
  '2.5.29.35'(value, _critical, fields) {
    const inner = open(value, tag.sequence);
    close(value);
    if (peek(inner) === 0x80) fields.authorityKeyId = keyIdentifier(takeContent(inner, 0x80));
    if (peek(inner) === 0xa1) takeElement(inner, 0xa1);
    if (peek(inner) === 0x82) takeElement(inner, 0x82);
    close(inner);
  },
  '2.5.29.15'(value, critical, fields) {
    fields.keyUsage = takeNamedBits(value);
    fields.keyUsageCritical = critical;
    close(value);
    if (fields.keyUsage === 0) throw invalid(what, 'its key usage is empty');
  },
  '2.5.29.37'(value, _critical, fields) {
    const inner = open(value, tag.sequence);
    close(value);
    const usages: string[] = [];
    while (peek(inner) >= 0) usages.push(takeObjectId(inner));
    if (usages.length === 0) throw invalid(what, 'its extended key usage is empty');
    fields.extendedKeyUsage = usages;
  },
  '2.5.29.19'(value, _critical, fields) {
    const inner = open(value, tag.sequence);
    close(value);
    fields.hasBasicConstraints = true;
    if (peek(inner) === tag.boolean) {
      if (!takeBoolean(inner)) throw invalid(what, 'its basic constraints write out a FALSE, which is not DER');
      fields.isCa = true;
    }
    if (peek(inner) === tag.integer) {
      if (!fields.isCa) throw invalid(what, 'it has a path length without being a CA');
      fields.pathLength = takeSmall(inner);
    }
    close(inner);
  },
  '2.5.29.17'(value, critical, fields) {
    fields.sanCritical = critical;
    const names = readGeneralNames(value, what);
    fields.uris = names.uris;
    fields.dnsNames = names.dnsNames;
    fields.otherNames = names.otherNames;
  },
  '2.5.29.30'(value, _critical, fields) {
    fields.nameConstraints = readNameConstraints(value);
    close(value);
  },
  // Certificate policies: with any-policy as the initial set they never refuse a path (RFC 5280 §6.1), so understood.
  '2.5.29.32'(value) {
    const inner = open(value, tag.sequence);
    close(value);
    while (peek(inner) >= 0) takeElement(inner, tag.sequence);
  },
};

function keyIdentifier(content: Buffer): Buffer {
  if (content.length === 0 || content.length > 64) throw invalid(what, 'a key identifier has no sensible length');
  return content;
}
