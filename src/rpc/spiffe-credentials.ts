/** How a channel makes its connections secure: Node does the handshake, and who the server is, we check ourselves. */
import type { KeyObject } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
  connect as tlsConnect,
} from 'node:tls';
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

/**
 * How long a connection may take to be made once TCP has it, ms: as long as clients in Go give one. A server that many come
 * back to at once takes them in turn, and whoever leaves early stands at the end of the line again.
 */
const patience = 20_000;

/** For one target. A class because grpc-js asks for a subclass of its own. */
export class SpiffeCredentials extends ChannelCredentials {
  readonly #target: TlsTarget;
  /** Connections to the other end that carry nothing yet. */
  readonly #waiting = new Set<TLSSocket>();
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
    const given = new Set<TLSSocket>();
    let isOver = false;
    return {
      connect: (socket) => {
        if (isOver) throw new Error('the connection is not wanted any more');
        return this.#connect(socket, given);
      },
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => calls ?? credentials.createEmpty(),
      // The library forgets a connection that is being made, and leaves it to the other end to finish or to close it.
      destroy: () => {
        isOver = true;
        for (const tls of given) if (isWaiting(tls)) tls.destroy();
      },
    };
  }

  /** Whether the other end has accepted a connection and has not answered on it yet: it is stuck, or has others before us. */
  get isWaiting(): boolean {
    return [...this.#waiting].some(isWaiting);
  }

  /** @param given where the connection is kept while it is open */
  #connect(socket: Socket, given: Set<TLSSocket>): Promise<experimental.SecureConnectResult> {
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
      given.add(tls);
      this.#waiting.add(tls);
      const cancel = clock.after(patience, () => {
        this.#waiting.delete(tls);
        if (isWaiting(tls)) tls.destroy(new Error(`no connection was made in ${patience / 1000} seconds`));
      });
      const failed = (error: Error): void => {
        tls.destroy();
        reject(error);
      };
      tls.once('close', () => {
        cancel();
        given.delete(tls);
        this.#waiting.delete(tls);
      });
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

/** The other end of HTTP/2 speaks as soon as it has finished the handshake, which is some time after we have. */
const isWaiting = (tls: TLSSocket): boolean => tls.bytesRead === 0;

const isAddress = (host: string): boolean => host.includes(':') || /^[\d.]+$/.test(host);
