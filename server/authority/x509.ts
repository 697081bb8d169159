/** The X.509 authority: self-signed CA certificates (X509-6 to X509-17, X509-29). */

import { keyTypes } from '../../src/crypto/algorithms.ts';
import { type Certificate, KeyUsage, parseCertificate } from '../../src/crypto/certificate.ts';
import {
  basicConstraints,
  type Issuer,
  keyUsage,
  type NameAttribute,
  name,
  prepareIssuer,
  subjectAltName,
  subjectKeyId,
  writeCertificate,
} from '../../src/crypto/certificate-writer.ts';
import type { Key } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle, X509Authority } from '../../src/spiffe/bundle.ts';
import { type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';
import { backdate } from '../../src/spiffe/lifetime.ts';
import type { AuthorityKind } from './authority.ts';
import type { Slot } from './slots.ts';

export interface CaSubject {
  readonly country: readonly string[];
  readonly organization: readonly string[];
  readonly commonName: string;
}

/** An X.509 authority ready to sign. */
export interface X509Signer {
  readonly authorityId: string;
  readonly certificate: Certificate;
  readonly issuer: Issuer;
  readonly key: Key;
  /** Certificates between the authority and the bundle, the authority's own first; empty when it is a root. */
  readonly chain: readonly Buffer[];
}

/** @param lifetime milliseconds */
export function x509Kind(
  trustDomain: TrustDomain,
  subject: CaSubject,
  lifetime: number,
  random: Random,
): AuthorityKind<X509Signer> {
  return {
    name: 'X.509',
    prefix: 'x509',

    async make(key, now) {
      const serial = newSerial(random);
      // The serial number in the subject makes the names of two authorities differ, so that no verifier tries the wrong one.
      const subjectName = name([
        ...subject.country.map((value): [NameAttribute, string] => ['C', value]),
        ...subject.organization.map((value): [NameAttribute, string] => ['O', value]),
        ...(subject.commonName ? ([['CN', subject.commonName]] as [NameAttribute, string][]) : []),
        ['serialNumber', BigInt(`0x${serial.toString('hex')}`).toString()],
      ]);
      const der = await writeCertificate(
        {
          serial,
          issuer: subjectName,
          notBefore: now - backdate,
          notAfter: now + lifetime,
          subject: subjectName,
          spki: key.publicKey,
          extensions: [
            keyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign),
            basicConstraints({ ca: true }),
            subjectKeyId(key.publicKey),
            subjectAltName({ uris: [trustDomainId(trustDomain)] }),
          ],
          algorithm: keyTypes[key.type].signatureAlgorithm,
        },
        (tbs) => key.sign(tbs, 'der'),
      );
      const certificate = parseCertificate(der);
      return {
        id: certificate.subjectKeyId!.toString('hex'),
        notBefore: certificate.notBefore,
        notAfter: certificate.notAfter,
        material: der.toString('base64'),
      };
    },

    signer: (slot, key) => signerOf(slot, key),

    publish(bundle, slot) {
      const der = Buffer.from(slot.material, 'base64');
      const there = bundle.x509Authorities.find(({ certificate }) => certificate.equals(der));
      if (there?.tainted === slot.tainted) return undefined;
      if (!there)
        return { ...bundle, x509Authorities: [...bundle.x509Authorities, { certificate: der, tainted: slot.tainted }] };
      return {
        ...bundle,
        x509Authorities: bundle.x509Authorities.map((one) => (one === there ? { ...one, tainted: slot.tainted } : one)),
      };
    },

    withdraw(bundle, slot) {
      const rest = without(bundle, slot);
      return rest.length === bundle.x509Authorities.length ? undefined : { ...bundle, x509Authorities: rest };
    },
  };
}

function signerOf(slot: Slot, key: Key): X509Signer {
  const certificate = parseCertificate(Buffer.from(slot.material, 'base64'));
  return { authorityId: slot.id, certificate, issuer: prepareIssuer({ certificate }), key, chain: [] };
}

function without(bundle: Bundle, slot: Slot): X509Authority[] {
  const der = Buffer.from(slot.material, 'base64');
  return bundle.x509Authorities.filter(({ certificate }) => !certificate.equals(der));
}

/** 127 random bits, positive (RFC 5280 §4.1.2.2). */
export function newSerial(random: Random): Buffer {
  const serial = random.bytes(16);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  return serial;
}
