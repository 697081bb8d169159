/** The X.509 authority: CA certificates, self-signed or signed by an upstream authority (X509-6 to X509-17, X509-29). */

import { hash } from 'node:crypto';
import { keyTypes } from '../../src/crypto/algorithms.ts';
import { authorityId, type Certificate, KeyUsage, parseCertificate } from '../../src/crypto/certificate.ts';
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
import { writeCsr } from '../../src/crypto/csr.ts';
import { newSerial } from '../../src/crypto/serial.ts';
import type { Key } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle, X509Authority } from '../../src/spiffe/bundle.ts';
import { type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';
import { backdate } from '../../src/spiffe/lifetime.ts';
import { roomBelow } from '../upstream/minted.ts';
import type { SteadyUpstream } from '../upstream/steady.ts';
import type { AuthorityKind } from './authority.ts';
import type { DistrustedRoots } from './distrust.ts';
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
  /** The earliest end on the way to the root, milliseconds. */
  readonly notAfter: number;
  /** How many authorities its path lengths allow below it; often `Infinity`. */
  readonly room: number;
}

/**
 * @param lifetime milliseconds
 * @param distrusted what is known against roots above; absent where there never were any
 */
export function x509Kind(
  trustDomain: TrustDomain,
  subject: CaSubject,
  lifetime: number,
  random: Random,
  distrusted?: DistrustedRoots,
): AuthorityKind<X509Signer> {
  return {
    name: 'X.509',
    prefix: 'x509',
    suits: (slot) => slot.upstream === undefined,
    condemns: ({ upstream }) =>
      upstream && distrusted?.of(upstream.id) === 'revoked' ? `its root ${upstream.id} is revoked` : undefined,

    async make(key, now) {
      const serial = newSerial(random);
      const subjectName = caName(subject, serial);
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

    spkiOf: ({ material }) => parseCertificate(Buffer.from(material, 'base64')).spki,
    signer: signerOf,

    publish(bundle, slot) {
      if (slot.upstream && distrusted?.of(slot.upstream.id) === 'revoked') return undefined;
      const der = anchorOf(slot);
      const there = bundle.x509Authorities.find(({ certificate }) => certificate.equals(der));
      // A root above this server is tainted by itself, not with what it signed.
      const tainted = slot.upstream ? (there?.tainted ?? false) : slot.tainted;
      if (there?.tainted === tainted) return undefined;
      if (!there) return { ...bundle, x509Authorities: [...bundle.x509Authorities, { certificate: der, tainted }] };
      return {
        ...bundle,
        x509Authorities: bundle.x509Authorities.map((one) => (one === there ? { ...one, tainted } : one)),
      };
    },

    withdraw(bundle, slot) {
      // Others may lead to the same root.
      if (slot.upstream) return undefined;
      const rest = without(bundle, slot);
      return rest.length === bundle.x509Authorities.length ? undefined : { ...bundle, x509Authorities: rest };
    },
  };
}

/** As `x509Kind`, of authorities that an upstream one signs. @param lifetime milliseconds */
export function upstreamX509Kind(
  trustDomain: TrustDomain,
  subject: CaSubject,
  lifetime: number,
  random: Random,
  distrusted: DistrustedRoots,
  upstream: SteadyUpstream,
): AuthorityKind<X509Signer> {
  /** The request of the last key: it may wait long, and is not signed anew at each look. */
  let last: { readonly spki: Buffer; readonly csr: Buffer } | undefined;
  async function requestOf(key: Key): Promise<Buffer> {
    if (last?.spki.equals(key.publicKey)) return last.csr;
    // The same subject whenever the same key asks.
    const serial = hash('sha256', key.publicKey, 'buffer').subarray(0, 16);
    const asked = { uri: trustDomainId(trustDomain), subject: caName(subject, serial), authority: true };
    last = { spki: key.publicKey, csr: await writeCsr(key, asked, (info) => key.sign(info, 'der')) };
    return last.csr;
  }
  return {
    ...x509Kind(trustDomain, subject, lifetime, random, distrusted),
    isRemote: true,
    suits: ({ upstream }) => upstream !== undefined && distrusted.of(upstream.id) === undefined,

    async make(key) {
      const { path } = await upstream.mint(await requestOf(key), key.publicKey, lifetime, distrusted.of);
      const { certificate, intermediates, root, rootId, notAfter } = path;
      return {
        id: authorityId(certificate),
        notBefore: certificate.notBefore,
        notAfter,
        material: certificate.der.toString('base64'),
        upstream: {
          id: rootId,
          root: root.der.toString('base64'),
          chain: intermediates.map(({ der }) => der.toString('base64')),
        },
      };
    },
  };
}

/** The serial number in the subject makes the names of two authorities differ, so that no verifier tries the wrong one. */
function caName({ country, organization, commonName }: CaSubject, serial: Buffer): Buffer {
  return name([
    ...country.map((value): [NameAttribute, string] => ['C', value]),
    ...organization.map((value): [NameAttribute, string] => ['O', value]),
    ...(commonName ? ([['CN', commonName]] as [NameAttribute, string][]) : []),
    ['serialNumber', BigInt(`0x${serial.toString('hex')}`).toString()],
  ]);
}

function signerOf(slot: Slot, key: Key): X509Signer {
  const certificate = parseCertificate(Buffer.from(slot.material, 'base64'));
  const intermediates = (slot.upstream?.chain ?? []).map((text) => Buffer.from(text, 'base64'));
  const root = slot.upstream && Buffer.from(slot.upstream.root, 'base64');
  return {
    authorityId: slot.id,
    certificate,
    issuer: prepareIssuer({ certificate }),
    key,
    chain: slot.upstream ? [certificate.der, ...intermediates] : [],
    notAfter: slot.notAfter,
    room: roomBelow([certificate, ...[...intermediates, ...(root ? [root] : [])].map(parseCertificate)]),
  };
}

/** What verifiers trust because of the slot: its root. */
function anchorOf(slot: Slot): Buffer {
  return Buffer.from(slot.upstream?.root ?? slot.material, 'base64');
}

/** The certificate of an authority, signed by another one that a verifier may trust instead; it ends with either. */
export async function crossSigned({ certificate }: X509Signer, by: Slot, key: Key, random: Random): Promise<Buffer> {
  const issuer = prepareIssuer({ certificate: parseCertificate(Buffer.from(by.material, 'base64')) });
  const parts = {
    serial: newSerial(random),
    issuer: issuer.name,
    notBefore: certificate.notBefore,
    notAfter: Math.min(certificate.notAfter, by.notAfter),
    subject: certificate.subject,
    spki: certificate.spki,
    extensions: [
      keyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign),
      basicConstraints({ ca: true }),
      subjectKeyId(certificate.spki),
      issuer.authorityKeyId,
      subjectAltName({ uris: certificate.uris }),
    ],
    algorithm: issuer.algorithm,
  };
  return writeCertificate(parts, (tbs) => key.sign(tbs, 'der'));
}

function without(bundle: Bundle, slot: Slot): X509Authority[] {
  const der = Buffer.from(slot.material, 'base64');
  return bundle.x509Authorities.filter(({ certificate }) => !certificate.equals(der));
}
