/** Who is at the other end of a connection, as the kernel or the TLS handshake proved it: never what a request says. */
import type { Certificate } from '../crypto/certificate.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { UnixPeer } from './unix-peer.ts';

export type Caller = UnixCaller | TlsCaller;

export interface UnixCaller {
  readonly kind: 'unix';
  readonly peer: UnixPeer;
}

export interface TlsCaller {
  readonly kind: 'tls';
  /** The IP address; empty over a Unix socket. */
  readonly address: string;
  /** DER, leaf first; empty when no client certificate was presented. */
  readonly chain: readonly Buffer[];
  /** There if, and only if, the presented chain was verified. */
  readonly svid?: {
    readonly id: SpiffeId;
    readonly leaf: Certificate;
    /** From the leaf to the authority that is trusted. */
    readonly path: readonly Certificate[];
  };
}
