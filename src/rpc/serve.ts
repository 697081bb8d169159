/**
 * gRPC servers over sockets of our own: the caller is identified once, when the connection is accepted, and each call
 * finds it by the name that its connection was given. A connection without an identified caller never carries a call.
 * Refused: messages over 4 MiB, more streams on a connection than its limit, headers over 64 KB.
 */
import { constants } from 'node:crypto';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { Fault, quote } from '../errors.ts';
import { systemClock } from '../run/clock.ts';
import type { Live } from '../run/live.ts';
import { keyExchange } from '../tls/key-exchange.ts';
import { presentedChain } from '../tls/presented-chain.ts';
import type { TlsCaller } from './caller.ts';
import { connectionTable, type ServeOptions, untrusted } from './connections.ts';
import { handshakesInTurn } from './handshakes.ts';
import { tlsLimits, unixLimits } from './limits.ts';
import { whenOpened } from './path-authority.ts';
import { listenOnPath } from './socket-path.ts';
import { type KernelPorts, linux, peerOf, type UnixPeer } from './unix-peer.ts';

export type { Call, Handler, Send } from './call.ts';
export type { ServeOptions } from './connections.ts';
export { type Encoded, encoded } from './encoded.ts';
export type { Service } from './grpc-server.ts';
export type { Limits } from './limits.ts';

export interface UnixOptions extends ServeOptions {
  readonly path: string;
  /** Of the socket, such as 0o777. Whoever may write to it may connect. */
  readonly mode: number;
  /** Asked of each connection; what it throws refuses it, what it gives is called at its end. */
  readonly admit?: (peer: UnixPeer) => () => void;
  /** For tests: an older kernel. */
  readonly kernel?: KernelPorts;
}

/** Where to listen: TCP (port 0 chooses a free one), or a Unix socket and its mode. */
export type TlsPlace =
  | { readonly host: string; readonly port: number }
  | { readonly path: string; readonly mode: number };

export interface TlsOptions extends ServeOptions {
  readonly at: TlsPlace;
  /** Refuses clients without a hybrid post-quantum key exchange (src/tls/key-exchange.ts). */
  readonly requirePostQuantum?: boolean;
  /** The certificate and key shown from the next handshake on (src/tls/credentials.ts makes them). */
  readonly context: Live<SecureContextOptions>;
  /** Verifies a client's chain (DER, leaf first); what it throws refuses the connection. */
  readonly verifyClient: (chain: readonly Buffer[]) => NonNullable<TlsCaller['svid']>;
  /** Asked of each connection once it is known who made it; what it throws refuses it, what it gives is called at its end. */
  readonly admit?: (caller: TlsCaller) => () => void;
}

const backlog = 4096;

export interface Serving {
  /** The path of the socket, or `host:port`. */
  readonly address: string;
  /** Stops accepting, ends open streams with UNAVAILABLE, lets other calls finish for `graceMs`. Idempotent. */
  close(graceMs: number): Promise<void>;
}

/** Serves on a Unix socket. Throws `config/invalid` or `state/refused` when the path cannot be served. */
export async function serveUnix(options: UnixOptions): Promise<Serving> {
  const limits = { ...unixLimits, ...options.limits };
  const connections = connectionTable(options, limits);
  const silent = new Set<Socket>();
  const server = createServer((socket) => {
    const orRefuse = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        connections.refuse(socket, error, '');
      }
    };
    orRefuse(() => {
      // Synchronously, before a byte is read: the descriptor is open and nobody else has it yet.
      const peer = peerOf(descriptorOf(socket), options.kernel ?? linux());
      socket.once('close', () => peer.close());
      const leave = options.admit?.(peer);
      if (leave !== undefined) socket.once('close', leave);
      silent.add(socket);
      socket.once('close', () => silent.delete(socket));
      socket.on('error', () => {});
      whenOpened(socket, (through) => {
        silent.delete(socket);
        orRefuse(() => connections.add(socket, { kind: 'unix', peer }, through));
      });
    });
  });
  server.maxConnections = limits.connections;
  const remove = await listenOnPath(server, options.path, options.mode, backlog);
  return {
    address: options.path,
    async close(graceMs) {
      const closed = connections.close(server, graceMs);
      for (const socket of silent) socket.destroy();
      remove();
      await closed;
    },
  };
}

/**
 * Serves on TCP or a Unix socket with TLS 1.2 or newer and HTTP/2. A client certificate is asked for, not required; one that is presented
 * has to verify, or the connection ends. Sessions are never resumed, so every connection is verified anew.
 * Throws `state/refused` when the place is taken, `config/invalid` when it cannot be bound.
 */
export async function serveTls(options: TlsOptions): Promise<Serving & { readonly port: number }> {
  const { at } = options;
  const limits = { ...tlsLimits, ...options.limits };
  const connections = connectionTable(options, limits);
  const exchange = keyExchange(options.requirePostQuantum === true);
  const secure = (context: SecureContextOptions): SecureContextOptions => ({
    ...context,
    // No roots: OpenSSL's opinion of a client's chain is not asked, ours is.
    ca: [],
    ...exchange,
    secureOptions: constants.SSL_OP_NO_TICKET,
    sessionIdContext: 'mutual',
  });
  const server = createTlsServer(
    {
      ...secure(options.context.value),
      requestCert: true,
      rejectUnauthorized: false,
      // Of a list Node makes a copy for each connection, three bytes that each hold 64 KB of its pool of buffers.
      ALPNCallback: ({ protocols }) => protocols.find((offered) => offered === 'h2'),
      handshakeTimeout: limits.handshakeMs,
      noDelay: true,
    },
    (socket) => {
      const address = plainAddress(socket.remoteAddress ?? '');
      try {
        const caller = tlsCaller(socket, address, options.verifyClient);
        const leave = options.admit?.(caller);
        if (leave !== undefined) socket.once('close', leave);
        connections.add(socket, caller);
      } catch (error) {
        connections.refuse(socket, error, address);
      }
    },
  );
  // Few may open a Unix socket, and its connections have no names to take turns by.
  const turns = 'path' in at ? undefined : handshakesInTurn(server, limits.handshakeMs, options.clock ?? systemClock);
  const front = turns?.listener ?? server;
  front.maxConnections = limits.connections;
  server.on('tlsClientError', (error, socket) => {
    options.onRefused?.(untrusted('the TLS handshake failed', error.message), plainAddress(socket.remoteAddress ?? ''));
  });
  const unfollow = options.context.onChange((context) => server.setSecureContext(secure(context)));
  let remove = (): void => {};
  try {
    if ('path' in at) remove = await listenOnPath(front, at.path, at.mode, backlog);
    else await listenOnPort(front, at.host, at.port);
  } catch (error) {
    unfollow();
    throw error;
  }
  const port = 'path' in at ? 0 : (front.address() as AddressInfo).port;
  return {
    address: 'path' in at ? at.path : at.host.includes(':') ? `[${at.host}]:${port}` : `${at.host}:${port}`,
    port,
    async close(graceMs) {
      unfollow();
      const closed = connections.close(front, graceMs);
      turns?.dismiss();
      remove();
      await closed;
    },
  };
}

function tlsCaller(socket: TLSSocket, address: string, verifyClient: TlsOptions['verifyClient']): TlsCaller {
  if (socket.alpnProtocol !== 'h2')
    throw untrusted('the client does not speak HTTP/2', `ALPN chose ${quote(socket.alpnProtocol)}`);
  if (socket.isSessionReused()) throw untrusted('the client resumed a session');
  const chain = presentedChain(socket);
  if (chain.length === 0) return { kind: 'tls', address, chain };
  const { id, leaf, path } = verifyClient(chain);
  return { kind: 'tls', address, chain, svid: { id, leaf, path } };
}

/** The descriptor of an accepted socket. Node has no public way to it. */
function descriptorOf(socket: Socket): number {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0)
    throw new Fault('caller/unauthenticated', 'the calling process could not be identified', {
      detail: 'the socket has no descriptor',
    });
  return fd;
}

/** An IPv4 address that came over an IPv6 socket, as IPv4. */
function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}

function listenOnPort(server: NetServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const at = quote(`${host}:${port}`);
      if (error.code === 'EADDRINUSE') {
        reject(
          new Fault('state/refused', `${at} is taken by another program`, {
            hint: 'Stop that program, or choose another port.',
            cause: error,
          }),
        );
      } else if (error.code === 'EACCES') {
        reject(
          new Fault('config/invalid', `this user may not listen on ${at}`, {
            hint: 'Choose a port above 1023.',
            cause: error,
          }),
        );
      } else {
        reject(
          new Fault('config/invalid', `cannot listen on ${at}: ${error.code ?? error.message}`, {
            hint: 'Give an address of this machine.',
            cause: error,
          }),
        );
      }
    });
    server.listen({ host, port, backlog }, () => {
      server.removeAllListeners('error');
      resolve();
    });
  });
}
