/** Bundles as text for the database: JSON with DER in base64 and the sequence number in decimal. */
import { Buffer } from 'node:buffer';
import type { Bundle, JwtAuthority } from '../../src/spiffe/bundle.ts';

interface KeyText {
  keyId: string;
  publicKey: string;
  expiresAt: number;
  tainted: boolean;
}
interface BundleText extends Omit<Bundle, 'x509Authorities' | 'jwtAuthorities' | 'witAuthorities' | 'sequence'> {
  x509Authorities: { certificate: string; tainted: boolean }[];
  jwtAuthorities: KeyText[];
  witAuthorities: KeyText[];
  sequence: string;
}

/** The bundle as one line of JSON. Equal bundles give equal text. */
export function encodeBundle(bundle: Bundle): string {
  const text: BundleText = {
    trustDomain: bundle.trustDomain,
    x509Authorities: bundle.x509Authorities.map((one) => ({
      certificate: base64(one.certificate),
      tainted: one.tainted,
    })),
    jwtAuthorities: bundle.jwtAuthorities.map(keyText),
    witAuthorities: bundle.witAuthorities.map(keyText),
    refreshHint: bundle.refreshHint,
    sequence: bundle.sequence.toString(),
  };
  return JSON.stringify(text);
}

/** The bundle that `encodeBundle` wrote. */
export function decodeBundle(body: string): Bundle {
  const text = JSON.parse(body) as BundleText;
  return {
    trustDomain: text.trustDomain,
    x509Authorities: text.x509Authorities.map((one) => ({
      certificate: Buffer.from(one.certificate, 'base64'),
      tainted: one.tainted,
    })),
    jwtAuthorities: text.jwtAuthorities.map(textKey),
    witAuthorities: text.witAuthorities.map(textKey),
    refreshHint: text.refreshHint,
    sequence: BigInt(text.sequence),
  };
}

/** The same bundle with Buffers where a thread boundary has made Uint8Arrays of them. */
export function withBuffers(bundle: Bundle): Bundle {
  const key = (one: JwtAuthority): JwtAuthority => ({ ...one, publicKey: buffer(one.publicKey) });
  return {
    ...bundle,
    x509Authorities: bundle.x509Authorities.map((one) => ({ ...one, certificate: buffer(one.certificate) })),
    jwtAuthorities: bundle.jwtAuthorities.map(key),
    witAuthorities: bundle.witAuthorities.map(key),
  };
}

const buffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const base64 = (bytes: Uint8Array): string => buffer(bytes).toString('base64');
const keyText = (key: JwtAuthority): KeyText => ({
  keyId: key.keyId,
  publicKey: base64(key.publicKey),
  expiresAt: key.expiresAt,
  tainted: key.tainted,
});
const textKey = (key: KeyText): JwtAuthority => ({
  keyId: key.keyId,
  publicKey: Buffer.from(key.publicKey, 'base64'),
  expiresAt: key.expiresAt,
  tainted: key.tainted,
});
