/** How a channel makes its connections secure: Node does the handshake, and who the server is, we check ourselves. */
import type { KeyObject } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, connect as tlsConnect } from 'node:tls';
import { Fault } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { CheckRevocation } from '../spiffe/revocation.ts';
import { secureContextOptions } from '../tls/credentials.ts';
import { keyExchange } from '../tls/key-exchange.ts';
import { presentedChain } from '../tls/presented-chain.ts';
import { verifyPeer } from '../tls/verify-peer.ts';
import type { Secured } from './dial.ts';

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
 * The handshakes with one server. Each rejects with `peer/untrusted` when the server is not who it should be, and with what
 * broke the connection otherwise, which is closed then.
 * @param name what a front end may route by; the certificate is not asked for it
 */
export function spiffeCredentials(
  server: ExpectedServer,
  name: string | undefined,
): (socket: Socket, signal: AbortSignal) => Promise<Secured> {
  const { bundle, expect, insecure, revocation, clock = systemClock } = server;
  const exchange = keyExchange(server.requirePostQuantum === true);
  let made: { of: unknown; context: SecureContext } | undefined;

  /** Made anew when the SVID has changed. */
  function secureContext(): SecureContext {
    const svid = server.svid?.();
    if (made === undefined || made.of !== svid) {
      const shown = svid === undefined || svid.chain.length === 0 ? {} : secureContextOptions(svid);
      made = { of: svid, context: createSecureContext({ ...shown, ca: [], ...exchange }) };
    }
    return made.context;
  }

  return (socket, signal) =>
    new Promise((resolve, reject) => {
      const tls = tlsConnect({
        socket,
        // Asked of the certificate below, by its ID.
        rejectUnauthorized: false,
        ...(name === undefined || isAddress(name) ? {} : { servername: name }),
        ALPNProtocols: ['h2'],
        secureContext: secureContext(),
      });
      const giveUp = (): void => failed(signal.reason);
      const failed = (error: unknown): void => {
        signal.removeEventListener('abort', giveUp);
        tls.destroy();
        reject(error);
      };
      signal.addEventListener('abort', giveUp, { once: true });
      tls.once('error', failed);
      const closed = (): void => failed(new Error('the connection was closed during the TLS handshake'));
      tls.once('close', closed);
      tls.once('secureConnect', () => {
        try {
          if (tls.alpnProtocol !== 'h2') throw new Fault('peer/untrusted', 'the other end does not speak HTTP/2');
          const roots = insecure === true ? undefined : bundle();
          const { notAfter } = verifyPeer(presentedChain(tls), { id: expect, roots, revocation }, clock.now());
          signal.removeEventListener('abort', giveUp);
          tls.off('close', closed);
          resolve({ socket: tls, endsAt: notAfter });
        } catch (error) {
          failed(error);
        }
      });
    });
}

const isAddress = (host: string): boolean => host.includes(':') || /^[\d.]+$/.test(host);
