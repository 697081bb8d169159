/** Trust bundles: the authorities of one trust domain (Trust Domain and Bundle §3, §4). */
import type { TrustDomain } from './id.ts';

export interface X509Authority {
  /** One DER certificate. */
  readonly certificate: Buffer;
  readonly tainted: boolean;
}

export interface JwtAuthority {
  readonly keyId: string;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  /** Unix seconds; 0 means never. */
  readonly expiresAt: number;
  readonly tainted: boolean;
}

export interface Bundle {
  readonly trustDomain: TrustDomain;
  readonly x509Authorities: readonly X509Authority[];
  readonly jwtAuthorities: readonly JwtAuthority[];
  /** Keys of the incubating WIT-SVID profile; the same shape as JWT authorities. */
  readonly witAuthorities: readonly JwtAuthority[];
  /** Seconds; 0 means none. */
  readonly refreshHint: number;
  /** Rises with every change of content (TB-4); 64 bits. */
  readonly sequence: bigint;
}
