/**
 * Certificates, written as bytes. What stays the same from one to the next (an issuer's name, key identifier and
 * algorithm; the usual extensions) is made once and copied, so that issuing costs little more than its signature.
 */
import { hash } from 'node:crypto';
import { Fault, quote } from '../errors.ts';
import { describeSpki, type KeyShape, keyTypeOfShape, keyTypes } from './algorithms.ts';
import { type Certificate, extendedKeyUsages } from './certificate.ts';
import {
  boolean,
  context,
  directoryString,
  headerLength,
  integer,
  namedBits,
  objectId,
  octetString,
  sequence,
  set,
  tag,
  time,
  tlv,
  writeHeader,
} from './der.ts';

/** The parts of an issuer that its certificates copy. */
export interface Issuer {
  readonly certificate: Certificate;
  /** The subject of the issuer's certificate, DER. */
  readonly name: Buffer;
  /** AuthorityKeyIdentifier extension. */
  readonly authorityKeyId: Buffer;
  /** AlgorithmIdentifier of the issuer's signatures. */
  readonly algorithm: Buffer;
}

/**
 * Prepares an authority whose key is of one of the types we make. Throws `input/invalid`.
 * Name and key identifier are copied bytes: an identifier computed anew might not be the one the certificate carries.
 */
export function prepareIssuer({ certificate }: { certificate: Certificate }): Issuer {
  const type = keyTypeOfShape(certificate.key);
  if (type === undefined) {
    throw new Fault(
      'input/invalid',
      `a certificate authority with a key of shape ${quote(shapeText(certificate.key))} cannot be used`,
      {
        hint: `Use one of ${Object.keys(keyTypes).join(', ')}.`,
      },
    );
  }
  return {
    certificate,
    name: certificate.subject,
    authorityKeyId: authorityKeyId(certificate.subjectKeyId ?? hash('sha1', certificate.key.keyBits, 'buffer')),
    algorithm: keyTypes[type].signatureAlgorithm,
  };
}

export interface CertificateParts {
  /** Big-endian, positive, at most 20 bytes once encoded. */
  readonly serial: Uint8Array;
  /** Name, DER. */
  readonly issuer: Uint8Array;
  /** Milliseconds since the epoch; the fraction of a second is dropped. */
  readonly notBefore: number;
  /** Milliseconds since the epoch; the fraction of a second is dropped. */
  readonly notAfter: number;
  /** Name, DER. */
  readonly subject: Uint8Array;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
  /** Whole extensions, in the order in which they are to stand. */
  readonly extensions: readonly Uint8Array[];
  /** AlgorithmIdentifier, DER, of the signature `sign` makes. */
  readonly algorithm: Uint8Array;
}

const version3 = context(0, [integer(2)]);

/**
 * Writes a certificate around the signature that `sign` makes over its signed part (DER for ECDSA).
 * At once when `sign` is synchronous, a promise when it gives one.
 */
export function writeCertificate(parts: CertificateParts, sign: (tbs: Buffer) => Buffer): Buffer;
export function writeCertificate(parts: CertificateParts, sign: (tbs: Buffer) => Promise<Buffer>): Promise<Buffer>;
export function writeCertificate(
  parts: CertificateParts,
  sign: (tbs: Buffer) => Buffer | Promise<Buffer>,
): Buffer | Promise<Buffer>;
export function writeCertificate(
  parts: CertificateParts,
  sign: (tbs: Buffer) => Buffer | Promise<Buffer>,
): Buffer | Promise<Buffer> {
  const serial = integer(parts.serial);
  if (serial.length > 22 || (serial.length === 3 && serial[2] === 0)) {
    throw new RangeError('writeCertificate: a serial number is positive and has at most 20 bytes');
  }
  if (parts.notAfter < parts.notBefore) throw new RangeError('writeCertificate: it would end before it begins');
  const validity = sequence(time(parts.notBefore), time(parts.notAfter));
  const extensions = parts.extensions.length === 0 ? [] : [context(3, [sequence(...parts.extensions)])];
  const tbs = sequence(
    version3,
    serial,
    parts.algorithm,
    parts.issuer,
    validity,
    parts.subject,
    parts.spki,
    ...extensions,
  );
  const signature = sign(tbs);
  return signature instanceof Promise
    ? signature.then((bytes) => seal(tbs, parts.algorithm, bytes))
    : seal(tbs, parts.algorithm, signature);
}

/** SEQUENCE { tbs, algorithm, BIT STRING signature } in one allocation. */
function seal(tbs: Buffer, algorithm: Uint8Array, signature: Buffer): Buffer {
  const bits = signature.length + 1;
  const length = tbs.length + algorithm.length + headerLength(bits) + bits;
  const certificate = Buffer.allocUnsafe(headerLength(length) + length);
  let at = writeHeader(certificate, 0, tag.sequence, length);
  certificate.set(tbs, at);
  at += tbs.length;
  certificate.set(algorithm, at);
  at = writeHeader(certificate, at + algorithm.length, tag.bitString, bits);
  certificate[at] = 0;
  certificate.set(signature, at + 1);
  return certificate;
}

const attributeTypes = {
  CN: '2.5.4.3',
  serialNumber: '2.5.4.5',
  C: '2.5.4.6',
  L: '2.5.4.7',
  ST: '2.5.4.8',
  street: '2.5.4.9',
  O: '2.5.4.10',
  OU: '2.5.4.11',
  postalCode: '2.5.4.17',
} as const;
export type NameAttribute = keyof typeof attributeTypes;

/** A Name of one attribute a part, in the order given: `name([['C', 'US'], ['O', 'SPIRE']])`. */
export function name(attributes: readonly (readonly [NameAttribute, string])[]): Buffer {
  return sequence(
    ...attributes.map(([type, value]) => set(sequence(objectId(attributeTypes[type]), directoryString(value)))),
  );
}

/** An extension from its dotted identifier and content. */
export function extension(id: string, critical: boolean, value: Uint8Array): Buffer {
  return critical
    ? sequence(objectId(id), boolean(true), octetString(value))
    : sequence(objectId(id), octetString(value));
}

/** KeyUsage, always critical (X509-15). @param flags of `KeyUsage` */
export function keyUsage(flags: number): Buffer {
  return extension('2.5.29.15', true, namedBits(flags));
}

/** ExtendedKeyUsage, not critical. */
export function extendedKeyUsage(...usages: readonly (keyof typeof extendedKeyUsages)[]): Buffer {
  return extension('2.5.29.37', false, sequence(...usages.map((usage) => objectId(extendedKeyUsages[usage]))));
}

/** BasicConstraints, always critical; for a leaf an empty sequence, since FALSE is the default (X509-12). */
export function basicConstraints({ ca, pathLength }: { ca: boolean; pathLength?: number | undefined }): Buffer {
  const parts = ca ? [boolean(true), ...(pathLength === undefined ? [] : [integer(pathLength)])] : [];
  return extension('2.5.29.19', true, sequence(...parts));
}

const subjectKeyIdFront = objectId('2.5.29.14');
const subjectAltNameId = objectId('2.5.29.17');
const criticalMark = boolean(true);

/**
 * SubjectKeyIdentifier: SHA-1 of the key bits (RFC 5280 §4.2.1.2, method 1).
 * @param spki DER
 * @param keyBits of it, where they are known
 */
export function subjectKeyId(spki: Buffer, keyBits: Buffer = describeSpki(spki).keyBits): Buffer {
  return sequence(subjectKeyIdFront, octetString(octetString(hash('sha1', keyBits, 'buffer'))));
}

/** The identifier `subjectKeyId` carries: 20 bytes. */
export function keyIdOf(spki: Buffer): Buffer {
  return hash('sha1', describeSpki(spki).keyBits, 'buffer');
}

/** AuthorityKeyIdentifier with the key identifier alone. */
export function authorityKeyId(keyId: Uint8Array): Buffer {
  return extension('2.5.29.35', false, sequence(context(0, [keyId], true)));
}

/**
 * SubjectAltName: the DNS names, then the URIs. Critical when the subject is empty (X509-5).
 * Throws `input/invalid` for a name that is not printable ASCII.
 */
export function subjectAltName(names: {
  uris?: readonly string[];
  dnsNames?: readonly string[];
  critical?: boolean;
}): Buffer {
  const list: Buffer[] = [];
  for (const dnsName of names.dnsNames ?? []) list.push(generalName(0x82, dnsName));
  for (const uri of names.uris ?? []) list.push(generalName(0x86, uri));
  const value = octetString(sequence(...list));
  return names.critical ? sequence(subjectAltNameId, criticalMark, value) : sequence(subjectAltNameId, value);
}

function generalName(kind: number, text: string): Buffer {
  if (!/^[\x20-\x7e]+$/.test(text))
    throw new Fault(
      'input/invalid',
      `name ${quote(text)} cannot stand in a certificate: it is empty or not printable ASCII`,
    );
  return tlv(kind, Buffer.from(text, 'latin1'));
}

function shapeText(shape: KeyShape): string {
  if (shape.kind === 'ml-dsa') return `ML-DSA-${shape.set}`;
  return shape.kind === 'ec' ? shape.curve : shape.kind === 'rsa' ? `RSA ${shape.bits}` : 'Ed25519';
}
