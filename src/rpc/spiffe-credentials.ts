/** How a channel makes its connections secure: Node does the handshake, and who the server is, we check ourselves. */
import type { KeyObject } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, type SecureContextOptions, connect as tlsConnect } from 'node:tls';
import { ChannelCredentials, credentials, type experimental } from '@grpc/grpc-js';
import { Fault } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { CheckRevocation } from '../spiffe/revocation.ts';
import { secureContextOptions } from '../tls/credentials.ts';
import { keyExchange } from '../tls/key-exchange.ts';
import { presentedChain } from '../tls/presented-chain.ts';
import { verifyPeer } from '../tls/verify-peer.ts';

/** Where a server is: on TCP, or on a Unix socket. */
export type TlsTarget = ExpectedServer &
  ({ readonly host: string; readonly port: number } | { readonly path: string; readonly host?: undefined });

export interface ExpectedServer {
  readonly trustDomain: TrustDomain;
  /** DER of the X.509 authorities, asked at each handshake. */
  readonly bundle: () => readonly Buffer[];
  /** What to present, asked at each handshake: DER leaf first, and its key. */
  readonly svid?:
    | (() => { readonly chain: readonly Buffer[]; readonly key: KeyObject | string } | undefined)
    | undefined;
  /** Who the server has to be. */
  readonly expect: SpiffeId;
  /** Accepts any certificate with that ID, whoever signed it. For the first contact only, where nothing better is known. */
  readonly insecure?: boolean | undefined;
  readonly revocation?: CheckRevocation | undefined;
  /** Takes no server without a hybrid post-quantum key exchange. */
  readonly requirePostQuantum?: boolean | undefined;
  readonly clock?: Clock;
}

/** For one target. A class because grpc-js asks for a subclass of its own. */
export class SpiffeCredentials extends ChannelCredentials {
  readonly #target: TlsTarget;
  readonly #exchange: SecureContextOptions;
  /** Why the last handshake was refused by us; undefined once one succeeded. */
  refusal: Fault | undefined;
  #context: { of: unknown; context: SecureContext } | undefined;

  constructor(target: TlsTarget) {
    super();
    this.#target = target;
    this.#exchange = keyExchange(target.requirePostQuantum === true);
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...[, , calls]: Parameters<ChannelCredentials['_createSecureConnector']>
  ): experimental.SecureConnector {
    return {
      connect: (socket) => this.#connect(socket),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => calls ?? credentials.createEmpty(),
      destroy() {},
    };
  }

  #connect(socket: Socket): Promise<experimental.SecureConnectResult> {
    const { host, bundle, expect, insecure, revocation, clock = systemClock } = this.#target;
    // A server that vanished is noticed by TCP: servers in Go take gRPC's own pings amiss when they come often.
    socket.setKeepAlive(true, 30_000);
    return new Promise((resolve, reject) => {
      const tls = tlsConnect({
        socket,
        // Asked of the certificate below, by its ID. The name only helps a front end that routes by it.
        rejectUnauthorized: false,
        ...(host === undefined || isAddress(host) ? {} : { servername: host }),
        ALPNProtocols: ['h2'],
        secureContext: this.#secureContext(),
      });
      const failed = (error: Error): void => {
        tls.destroy();
        reject(error);
      };
      tls.once('error', failed);
      tls.once('close', () => failed(new Error('the connection was closed during the TLS handshake')));
      tls.once('secureConnect', () => {
        try {
          if (tls.alpnProtocol !== 'h2') throw new Fault('peer/untrusted', 'the other end does not speak HTTP/2');
          const roots = insecure === true ? undefined : bundle();
          verifyPeer(presentedChain(tls), { id: expect, roots, revocation }, clock.now());
        } catch (error) {
          this.refusal = error instanceof Fault ? error : undefined;
          return failed(error as Error);
        }
        this.refusal = undefined;
        resolve({ socket: tls, secure: true });
      });
    });
  }

  /** Made anew when the SVID has changed. */
  #secureContext(): SecureContext {
    const svid = this.#target.svid?.();
    if (this.#context === undefined || this.#context.of !== svid) {
      const shown = svid === undefined || svid.chain.length === 0 ? {} : secureContextOptions(svid);
      this.#context = { of: svid, context: createSecureContext({ ...shown, ca: [], ...this.#exchange }) };
    }
    return this.#context.context;
  }
}

const isAddress = (host: string): boolean => host.includes(':') || /^[\d.]+$/.test(host);
