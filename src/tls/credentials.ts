/** Our own certificate and key as Node's TLS takes them. */
import type { KeyObject } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import { pemEncode } from '../crypto/pem.ts';

/** A certificate chain and its key, for a handshake. */
export interface TlsCredentials {
  /** DER, leaf first, without the root. */
  readonly chain: readonly Buffer[];
  /** A private key, or PEM of one. */
  readonly key: KeyObject | string;
}

/** Makes the options from which Node builds a secure context. */
export function secureContextOptions({ chain, key }: TlsCredentials): SecureContextOptions {
  return {
    cert: chain.map((der) => pemEncode('CERTIFICATE', der)).join(''),
    key: typeof key === 'string' ? key : (key.export({ type: 'pkcs8', format: 'pem' }) as string),
  };
}
