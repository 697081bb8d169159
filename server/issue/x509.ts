/**
 * X509-SVIDs. The ID comes from a stored entry or a proved node; of a request only the key is used. What does not change
 * from one certificate to the next is prepared once per authority, so that issuing costs little more than a signature.
 */
import { hash } from 'node:crypto';
import { KeyUsage } from '../../src/crypto/certificate.ts';
import {
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  subjectAltName,
  subjectKeyId,
  writeCertificate,
} from '../../src/crypto/certificate-writer.ts';
import { newSerial } from '../../src/crypto/serial.ts';
import type { Place } from '../../src/crypto/workplace.ts';
import { Fault } from '../../src/errors.ts';
import { signAt } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import { type SpiffeId, type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';
import { svidValidity } from '../../src/spiffe/lifetime.ts';
import type { X509Signer } from '../authority/x509.ts';
import { isEmptyName, svidSubject, withCommonName, withOrganizationalUnit } from './subject.ts';

export interface X509Profile {
  readonly id: SpiffeId;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  /** The bits of that key, where it was described already. */
  readonly keyBits?: Buffer;
  /** Milliseconds; cut to what is left of the authority. */
  readonly ttl: number;
  readonly dnsNames: readonly string[];
  /** A Name, DER; C=US, O=SPIRE when absent or empty. */
  readonly subject?: Buffer;
}

export interface IssuedX509Svid {
  /** DER, leaf first, without the root. */
  readonly chain: readonly Buffer[];
  /** Milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Decimal. */
  readonly serial: string;
}

const leafUsages = [
  keyUsage(KeyUsage.digitalSignature | KeyUsage.keyEncipherment | KeyUsage.keyAgreement),
  extendedKeyUsage('serverAuth', 'clientAuth'),
  basicConstraints({ ca: false }),
];
const authorityUsages = [keyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign), basicConstraints({ ca: true })];

/**
 * Issues an SVID (X509-1 to X509-22). Throws `state/refused` when the authority has expired.
 * @param now milliseconds
 * @param place where to sign
 */
export async function issueX509Svid(
  signer: X509Signer,
  profile: X509Profile,
  now: number,
  random: Pick<Random, 'bytes'>,
  place: Place = 'here',
): Promise<IssuedX509Svid> {
  const given = profile.subject && !isEmptyName(profile.subject) ? profile.subject : svidSubject;
  const commonName = profile.dnsNames[0];
  return issue(signer, now, random, place, {
    ttl: profile.ttl,
    spki: profile.spki,
    subject: commonName === undefined ? given : withCommonName(given, commonName),
    extensions: [
      ...leafUsages,
      subjectKeyId(profile.spki, profile.keyBits),
      signer.issuer.authorityKeyId,
      subjectAltName({ uris: [profile.id], dnsNames: profile.dnsNames }),
    ],
  });
}

/** Issues the certificate of a downstream authority of the same trust domain. */
export function issueDownstreamCa(
  signer: X509Signer,
  asked: { trustDomain: TrustDomain; spki: Buffer; ttl: number },
  now: number,
  random: Random,
): Promise<IssuedX509Svid> {
  if (signer.room < 1) {
    throw new Fault('state/refused', 'the path length above this server allows no authority below it', {
      hint: 'Have the certificates above it made with a path length that is longer by one, or without one.',
    });
  }
  return issue(signer, now, random, 'here', {
    ttl: asked.ttl,
    spki: asked.spki,
    subject: withOrganizationalUnit(signer.issuer.name, downstreamUnit(asked.spki)),
    extensions: [
      ...authorityUsages,
      subjectKeyId(asked.spki),
      signer.issuer.authorityKeyId,
      subjectAltName({ uris: [trustDomainId(asked.trustDomain)] }),
    ],
  });
}

/** SPIRE's numbers are the same for all servers beside each other; names that differ keep verifiers from a wrong chain. */
const downstreamUnit = (spki: Buffer): string => `DOWNSTREAM-${hash('sha256', spki).slice(0, 16)}`;

async function issue(
  signer: X509Signer,
  now: number,
  random: Pick<Random, 'bytes'>,
  place: Place,
  parts: { ttl: number; spki: Buffer; subject: Buffer; extensions: readonly Buffer[] },
): Promise<IssuedX509Svid> {
  const { notBefore, notAfter } = svidValidity(now, parts.ttl, signer.notAfter);
  if (notAfter <= now) {
    throw new Fault('state/refused', 'the X.509 authority has expired', {
      hint: 'A new one is being made: try again.',
    });
  }
  const serial = newSerial(random);
  const der = await writeCertificate(
    {
      serial,
      issuer: signer.issuer.name,
      notBefore,
      notAfter,
      subject: parts.subject,
      spki: parts.spki,
      extensions: parts.extensions,
      algorithm: signer.issuer.algorithm,
    },
    (tbs) => signAt(place, signer.key, tbs, 'der'),
  );
  return {
    chain: [der, ...signer.chain],
    notBefore,
    notAfter,
    serial: BigInt(`0x${serial.toString('hex')}`).toString(),
  };
}
