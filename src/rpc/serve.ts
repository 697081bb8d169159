/**
 * gRPC servers over sockets of our own: the caller is identified once, when the connection is accepted, and each call
 * finds it by the name that its connection was given. A connection without an identified caller never carries a call.
 * Refused: messages over 4 MiB, more streams on a connection than its limit, headers over 64 KB.
 */
import { constants } from 'node:crypto';
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Certificate } from '../crypto/certificate.ts';
import { Fault, quote } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import type { Live } from '../run/live.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { presentedChain } from '../tls/presented-chain.ts';
import { adapt, type Call, type CallHooks, type Handler, takeBytes } from './call.ts';
import type { Caller } from './caller.ts';
import { loadService } from './load.ts';
import { reflection } from './reflection.ts';
import { listenOnPath } from './socket-path.ts';
import { type KernelPorts, linux, peerOf } from './unix-peer.ts';

export { type Call, type Encoded, encoded, type Handler, type Send } from './call.ts';

/** The handlers of one service. Methods of the contract that are not named here answer UNIMPLEMENTED. */
export interface Service {
  /** The full name, such as `spire.api.server.entry.v1.Entry`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, Handler>>;
}

export interface ServeOptions {
  readonly services: readonly Service[];
  /** Runs before each handler; what it throws is the answer. */
  readonly guard?: (call: Call) => void | Promise<void>;
  /** Told once a call: undefined when it worked. */
  readonly onDone?: (call: Call, fault: Fault | undefined, ms: number) => void;
  /** Told of a call that failed. */
  readonly onFault?: (call: Call, fault: Fault, ms: number) => void;
  /** Told of a connection that was refused before it could carry a call. `from` is an address, or empty. */
  readonly onRefused?: (fault: Fault, from: string) => void;
  /** Also serve gRPC reflection of these services. */
  readonly reflection?: boolean;
  readonly clock?: Clock;
  readonly limits?: Partial<Limits>;
}

export interface UnixOptions extends ServeOptions {
  readonly path: string;
  /** Of the socket, such as 0o777. Whoever may write to it may connect. */
  readonly mode: number;
  /** For tests: an older kernel. */
  readonly kernel?: KernelPorts;
}

export interface TlsOptions extends ServeOptions {
  readonly host: string;
  /** 0 chooses a free one. */
  readonly port: number;
  /** The certificate and key shown from the next handshake on (src/tls/credentials.ts makes them). */
  readonly context: Live<SecureContextOptions>;
  /** Verifies a client's chain (DER, leaf first); what it throws refuses the connection. */
  readonly verifyClient: (chain: readonly Buffer[]) => { id: SpiffeId; leaf: Certificate };
}

/** Bytes, milliseconds and numbers. */
export interface Limits {
  /** The largest message received. */
  readonly messageBytes: number;
  /** Streams at a time on one connection. */
  readonly streams: number;
  /** Connections at a time; more are closed at once. */
  readonly connections: number;
  /** How long a TLS handshake may take. */
  readonly handshakeMs: number;
  /** A silent connection is asked for a sign of life this often, and closed when none comes for a third of it. */
  readonly keepaliveMs: number;
  /** After about this long a connection is asked to end when its streams do, so that clients look the address up again. */
  readonly connectionAgeMs: number;
  /** A connection without any stream is closed after this long. */
  readonly idleMs: number;
}

const never = 2 ** 31 - 1;
const unixLimits: Limits = {
  messageBytes: 4 << 20,
  streams: 256,
  connections: 16_384,
  handshakeMs: never,
  keepaliveMs: never,
  connectionAgeMs: never,
  idleMs: never,
};
const tlsLimits: Limits = {
  messageBytes: 4 << 20,
  streams: 256,
  connections: 65_536,
  handshakeMs: 10_000,
  keepaliveMs: 60_000,
  connectionAgeMs: 180_000,
  idleMs: 30 * 60_000,
};
/** A caller who has not proved anything needs two methods with small messages, and may cost little else. */
const anonymousLimits: Partial<Limits> = { messageBytes: 1 << 20, streams: 16 };

const backlog = 4096;

export interface Serving {
  /** The socket path, or `host:port`. */
  readonly address: string;
  /** Stops accepting, ends open streams with UNAVAILABLE, lets other calls finish for `graceMs`. Idempotent. */
  close(graceMs: number): Promise<void>;
}

/** Serves on a Unix socket. Throws `config/invalid` or `state/refused` when the path cannot be served. */
export async function serveUnix(options: UnixOptions): Promise<Serving> {
  const limits = { ...unixLimits, ...options.limits };
  const connections = connectionTable(options, limits);
  const kernel = options.kernel ?? linux();
  const server = createServer((socket) => {
    // Synchronously, before a byte is read: the descriptor is open and nobody else has it yet.
    try {
      const peer = peerOf(descriptorOf(socket), kernel);
      socket.once('close', () => peer.close());
      connections.add(socket, { kind: 'unix', peer });
    } catch (error) {
      connections.refuse(socket, error, '');
    }
  });
  server.maxConnections = limits.connections;
  const remove = await listenOnPath(server, options.path, options.mode, backlog);
  return {
    address: options.path,
    async close(graceMs) {
      const closed = connections.close(server, graceMs);
      remove();
      await closed;
    },
  };
}

/**
 * Serves on TCP with TLS 1.2 or newer and HTTP/2. A client certificate is asked for, not required; one that is presented
 * has to verify, or the connection ends. Sessions are never resumed, so every connection is verified anew.
 * Throws `state/refused` when the port is taken, `config/invalid` when the address cannot be bound.
 */
export async function serveTls(options: TlsOptions): Promise<Serving & { readonly port: number }> {
  const limits = { ...tlsLimits, ...options.limits };
  const connections = connectionTable(options, limits);
  const secure = (context: SecureContextOptions): SecureContextOptions => ({
    ...context,
    // No roots: OpenSSL's opinion of a client's chain is not asked, ours is.
    ca: [],
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET,
    sessionIdContext: 'mutual',
  });
  const server = createTlsServer(
    {
      ...secure(options.context.value),
      requestCert: true,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      handshakeTimeout: limits.handshakeMs,
      noDelay: true,
    },
    (socket) => {
      const address = plainAddress(socket.remoteAddress ?? '');
      try {
        connections.add(socket, tlsCaller(socket, address, options.verifyClient));
      } catch (error) {
        connections.refuse(socket, error, address);
      }
    },
  );
  server.maxConnections = limits.connections;
  server.on('tlsClientError', (error, socket) => {
    options.onRefused?.(untrusted('the TLS handshake failed', error.message), plainAddress(socket.remoteAddress ?? ''));
  });
  const unfollow = options.context.onChange((context) => server.setSecureContext(secure(context)));
  try {
    await listenOnPort(server, options.host, options.port);
  } catch (error) {
    unfollow();
    throw error;
  }
  const { port } = server.address() as AddressInfo;
  return {
    address: options.host.includes(':') ? `[${options.host}]:${port}` : `${options.host}:${port}`,
    port,
    async close(graceMs) {
      unfollow();
      await connections.close(server, graceMs);
    },
  };
}

function tlsCaller(socket: TLSSocket, address: string, verifyClient: TlsOptions['verifyClient']): Caller {
  if (socket.alpnProtocol !== 'h2')
    throw untrusted('the client does not speak HTTP/2', `ALPN chose ${quote(socket.alpnProtocol)}`);
  if (socket.isSessionReused()) throw untrusted('the client resumed a session');
  const chain = presentedChain(socket);
  if (chain.length === 0) return { kind: 'tls', address, chain };
  const { id, leaf } = verifyClient(chain);
  return { kind: 'tls', address, chain, svid: { id, leaf } };
}

const untrusted = (message: string, detail?: string): Fault =>
  new Fault('peer/untrusted', message, detail === undefined ? {} : { detail });

/** The connections of one listener: which caller is behind each, and how they end. */
function connectionTable(options: ServeOptions, limits: Limits) {
  const clock = options.clock ?? systemClock;
  const closing = new AbortController();
  const callers = new Map<string, Caller>();
  const sockets = new Set<Socket>();
  const { onDone, onFault } = options;
  const hooks: CallHooks = {
    clock,
    callerOf: (connection) => callers.get(connection),
    guard: options.guard,
    closing: closing.signal,
    onDone:
      onDone === undefined && onFault === undefined
        ? undefined
        : (call, fault, ms) => {
            onDone?.(call, fault, ms);
            if (fault !== undefined) onFault?.(call, fault, ms);
          },
  };
  const known = grpcServer(options, hooks, limits);
  let anonymous: ReturnType<typeof grpcServer> | undefined;
  let count = 0;
  let closed: Promise<void> | undefined;

  const close = async (server: NetServer, graceMs: number): Promise<void> => {
    closing.abort();
    const ended = new Promise<void>((resolve) => server.close(() => resolve()));
    known.destroy();
    anonymous?.destroy();
    const cancel = clock.after(graceMs, () => {
      for (const socket of sockets) socket.destroy();
    });
    await ended;
    cancel();
  };

  return {
    add(socket: Socket, caller: Caller): void {
      if (closing.signal.aborted) throw new Fault('peer/unavailable', 'the server is closing');
      const name = `#${++count}`;
      callers.set(name, caller);
      sockets.add(socket);
      socket.once('close', () => {
        callers.delete(name);
        sockets.delete(socket);
      });
      socket.on('error', () => {});
      // What a call sees as its connection's address: the only thing of a socket that grpc-js hands on.
      Object.defineProperty(socket, 'remoteAddress', { value: name });
      Object.defineProperty(socket, 'remotePort', { value: undefined });
      if (caller.kind === 'unix' || caller.svid !== undefined) {
        known.injectConnection(socket);
        return;
      }
      anonymous ??= grpcServer(options, hooks, { ...limits, ...smaller(limits, anonymousLimits) });
      anonymous.injectConnection(socket);
    },
    refuse(socket: Socket, error: unknown, from: string): void {
      socket.on('error', () => {});
      socket.destroy();
      options.onRefused?.(
        error instanceof Fault ? error : untrusted('the connection was refused', String(error)),
        from,
      );
    },
    close(server: NetServer, graceMs: number): Promise<void> {
      closed ??= close(server, graceMs);
      return closed;
    },
  };
}

function smaller(limits: Limits, others: Partial<Limits>): Partial<Limits> {
  return Object.fromEntries(
    Object.entries(others).map(([name, value]) => [name, Math.min(value, limits[name as keyof Limits])]),
  );
}

/** A grpc-js server without a listener: connections are handed to it. */
function grpcServer(options: ServeOptions, hooks: CallHooks, limits: Limits) {
  const server = new Server({
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': limits.streams,
    'grpc.max_connection_age_ms': limits.connectionAgeMs,
    'grpc.max_connection_idle_ms': limits.idleMs,
    'grpc.keepalive_time_ms': limits.keepaliveMs,
    'grpc.keepalive_timeout_ms': Math.ceil(limits.keepaliveMs / 3),
    'grpc.enable_channelz': 0,
    // Megabytes of queued frames after which a connection gets no new streams.
    'grpc-node.max_session_memory': 64,
  });
  for (const { name, methods } of options.services) addService(server, name, methods, hooks);
  if (options.reflection === true) {
    for (const { definition, handler } of reflection(options.services.map(({ name }) => name))) {
      server.addService({ m: { ...definition, responseSerialize: takeBytes } } as unknown as ServiceDefinition, {
        m: adapt(definition, handler, hooks),
      });
    }
  }
  return server.createConnectionInjector(ServerCredentials.createInsecure());
}

function addService(server: Server, name: string, methods: Service['methods'], hooks: CallHooks): void {
  const contract = loadService(name);
  const unknown = Object.keys(methods).find((method) => !(method in contract));
  if (unknown !== undefined) throw new Error(`service ${name} has no method ${quote(unknown)}`);
  const definition: Record<string, unknown> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const [method, wire] of Object.entries(contract)) {
    definition[method] = { ...wire, responseSerialize: takeBytes };
    implementation[method] = adapt(wire, methods[method] ?? unimplemented, hooks);
  }
  server.addService(definition as ServiceDefinition, implementation);
}

const unimplemented: Handler = (_input, call) => {
  throw new Fault('method/unimplemented', `${call.method} is not offered here`);
};

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
