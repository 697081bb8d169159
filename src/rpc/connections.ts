/**
 * The connections of one listener: which caller is behind each, what a connection may cost, and how they end. The sockets
 * are ours, the HTTP/2 server on them is grpc-js's; plain calls are taken from it before they become calls of grpc-js.
 */
import {
  constants,
  type Http2Server,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Server as NetServer, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { Fault, quote } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import { type Random, systemRandom } from '../run/random.ts';
import { growOld } from './ageing.ts';
import { type Call, type CallHooks, type Handler, refusedCall, serve } from './call.ts';
import type { Caller } from './caller.ts';
import { type DirectMethod, directCalls, refuseStream } from './direct-call.ts';
import { adapt, takeBytes } from './library-call.ts';
import { loadService } from './load.ts';
import { reflection } from './reflection.ts';
import { refusedMessages } from './refused-messages.ts';
import { requestBytes } from './request-bytes.ts';
import { type StrangerLimits, strangerLimits, strangers } from './strangers.ts';

/** The handlers of one service. Methods of the contract that are not named here answer UNIMPLEMENTED. */
export interface Service {
  /** The full name, such as `spire.api.server.entry.v1.Entry`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, Handler>>;
}

export interface ServeOptions {
  readonly services: readonly Service[];
  /** Runs before each handler; what it throws is the answer. */
  readonly guard?: (call: Call) => unknown;
  /** Told once a call: undefined when it worked. */
  readonly onDone?: (call: Call, fault: Fault | undefined, ms: number) => void;
  /** Told of a call that failed. */
  readonly onFault?: (call: Call, fault: Fault, ms: number) => void;
  /** Told of a connection that was refused before it could carry a call. `from` is an address, or empty. */
  readonly onRefused?: (fault: Fault, from: string) => void;
  /** Also serve gRPC reflection of these services. */
  readonly reflection?: boolean;
  /** Ends a connection with the certificate of its caller: its streams, with this, and a second later itself. */
  readonly endsWithSvid?: Fault;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly limits?: Partial<Limits>;
  /** What those may hold together who have proved nothing. */
  readonly strangers?: Partial<StrangerLimits>;
}

/** Bytes, milliseconds and numbers. */
export interface Limits {
  /** The largest message received. */
  readonly messageBytes: number;
  /** Of all requests together that have not been answered, by all connections; more are refused. */
  readonly requestBytes: number;
  /** Streams at a time on one connection. */
  readonly streams: number;
  /** Streams a second that a connection may cancel once it has cancelled a thousand; it is closed when it cancels more. */
  readonly cancelsPerSecond: number;
  /** Connections at a time; more are closed at once. */
  readonly connections: number;
  /** How long a TLS handshake may take. */
  readonly handshakeMs: number;
  /** A silent connection is asked for a sign of life this often, and closed when none comes for a third of it. */
  readonly keepaliveMs: number;
  /** After about this long a connection without a stream is ended, so that clients look the address up again. */
  readonly connectionAgeMs: number;
  /** After about this long one with streams is ended too. */
  readonly streamAgeMs: number;
  /** A connection without any stream is closed after this long. */
  readonly idleMs: number;
}

const never = 2 ** 31 - 1;
export const unixLimits: Limits = {
  messageBytes: 4 << 20,
  requestBytes: 256 << 20,
  streams: 256,
  // A workload that looks at the first message of a stream and leaves does no harm, however often.
  cancelsPerSecond: 100_000,
  connections: 16_384,
  handshakeMs: never,
  keepaliveMs: never,
  connectionAgeMs: never,
  streamAgeMs: never,
  idleMs: never,
};
export const tlsLimits: Limits = {
  messageBytes: 4 << 20,
  requestBytes: 256 << 20,
  streams: 256,
  cancelsPerSecond: 33,
  connections: 65_536,
  handshakeMs: 10_000,
  keepaliveMs: 60_000,
  connectionAgeMs: 180_000,
  // An agent's SVID is renewed more often, and its connection with it; this is for those that live for days. Longer than
  // such an SVID lives unless told otherwise, so that a stream that ends with its SVID says so.
  streamAgeMs: 7_200_000,
  idleMs: 30 * 60_000,
};
/** A caller who has not proved anything needs two methods with small messages, and may cost little else. */
const anonymousLimits: Partial<Limits> = {
  messageBytes: 1 << 20,
  requestBytes: 32 << 20,
  streams: 16,
  streamAgeMs: 180_000,
};
/** Milliseconds that an answer has to reach a caller before its stream, or connection, is broken off. */
const lastWordMs = 1_000;

/** A connection whose other end proved nothing that is enough. `detail` is for the operator. */
export const untrusted = (message: string, detail?: string): Fault =>
  new Fault('peer/untrusted', message, detail === undefined ? {} : { detail });

/** Makes the table; `limits` are the listener's, already chosen. */
export function connectionTable(options: ServeOptions, limits: Limits) {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  let closing: Fault | undefined;
  const callers = new Map<string, Caller>();
  /** How to end each open stream, by connection; those without a stream are not here. */
  const streams = new Map<string, Set<(reason: Fault) => void>>();
  const sockets = new Set<Socket>();
  const { onDone, onFault } = options;
  const hooks: CallHooks = {
    clock,
    callerOf: (connection) => callers.get(connection),
    guard: options.guard,
    opened(connection, end) {
      const others = streams.get(connection);
      if (others === undefined) streams.set(connection, new Set([end]));
      else others.add(end);
    },
    over(connection, end) {
      const others = streams.get(connection);
      others?.delete(end);
      if (others?.size === 0) streams.delete(connection);
    },
    closing: () => closing,
    onDone:
      onDone === undefined && onFault === undefined
        ? undefined
        : (call, fault, ms) => {
            onDone?.(call, fault, ms);
            if (fault !== undefined) onFault?.(call, fault, ms);
          },
  };
  const known = grpcServer(options, hooks, limits);
  const anonymousLimit = { ...limits, ...smaller(limits, anonymousLimits) };
  const strangerLimit = { ...strangerLimits(limits.connections), ...options.strangers };
  const unknown = strangers(strangerLimit, clock);
  /** Counts a call of somebody unknown, or refuses it. */
  const admitCall = (connection: string, stream: ServerHttp2Stream, refused: (fault: Fault) => void): boolean => {
    const caller = callers.get(connection);
    const over = unknown.called(caller?.kind === 'tls' ? caller.address : '', () =>
      stream.close(constants.NGHTTP2_CANCEL),
    );
    if (over === undefined) {
      refused(unknown.refusal);
      refuseStream(stream, unknown.refusal);
      return false;
    }
    stream.once('close', over);
    closeWhenAnswered(stream, clock);
    return true;
  };
  let anonymous: ReturnType<typeof grpcServer> | undefined;
  let count = 0;
  let closed: Promise<void> | undefined;

  const endStreams = (name: string, reason: Fault): void => {
    for (const end of [...(streams.get(name) ?? [])]) end(reason);
  };
  /** `session` is the connection's end for HTTP/2. */
  const ending =
    (name: string, session: ServerHttp2Session) =>
    (reason: Fault): void => {
      // First, so that whoever comes back because of the reason comes on another connection.
      session.close();
      endStreams(name, reason);
    };
  const age = (socket: Socket, end: (reason: Fault) => void, name: string, caller: Caller, limits: Limits): void => {
    const { endsWithSvid } = options;
    if (endsWithSvid !== undefined && caller.kind === 'tls' && caller.svid !== undefined) {
      const left = caller.svid.leaf.notAfter - clock.now();
      let cancel = clock.after(Math.max(left, 0), () => {
        endStreams(name, endsWithSvid);
        // A handshake takes it to the end of its last second: who came back sooner would be let in, to be sent away at once.
        cancel = clock.after(1_000, () => end(endsWithSvid));
      });
      socket.once('close', () => cancel());
    }
    if (limits.connectionAgeMs === never) return;
    socket.once('close', growOld({ streaming: () => streams.has(name), end }, limits, clock, random));
  };

  const close = async (server: NetServer, graceMs: number): Promise<void> => {
    closing = new Fault('peer/unavailable', 'the server is closing', { hint: 'Connect again.' });
    for (const name of [...streams.keys()]) endStreams(name, closing);
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
    /** @param through what carries HTTP/2, where that is not the socket itself */
    add(socket: Socket, caller: Caller, through: Duplex = socket): void {
      if (closing !== undefined) throw closing;
      const name = `#${++count}`;
      callers.set(name, caller);
      sockets.add(socket);
      socket.once('close', () => {
        callers.delete(name);
        sockets.delete(socket);
      });
      socket.on('error', () => {});
      if (caller.kind === 'unix' || caller.svid !== undefined) {
        age(socket, ending(name, known.inject(through, name)), name, caller, limits);
        return;
      }
      anonymous ??= grpcServer(options, hooks, anonymousLimit, {
        requestMs: strangerLimit.requestMs,
        admit: admitCall,
      });
      const end = ending(name, anonymous.inject(through, name));
      age(socket, end, name, caller, anonymousLimit);
      const leave = unknown.connected(caller.address, (reason) => {
        end(reason);
        socket.once(
          'close',
          clock.after(lastWordMs, () => socket.destroy()),
        );
      });
      socket.once('close', leave);
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

/**
 * A caller who has the status, and does not end its request, holds its stream no longer. Not at once: what breaks a stream
 * off overtakes what was sent on it.
 */
function closeWhenAnswered(stream: ServerHttp2Stream, clock: Clock): void {
  const close = (): void => {
    if (!stream.readableEnded)
      stream.once(
        'close',
        clock.after(lastWordMs, () => stream.close()),
      );
  };
  stream.once('wantTrailers', close);
  stream.once('finish', () => {
    if (stream.sentHeaders?.['grpc-status'] !== undefined) close();
  });
}

/** What is done with the calls of those who proved nothing. */
interface Unknown {
  readonly requestMs: number;
  /** Whether a call is taken; one that is not has been answered, and `refused` told why. */
  admit(connection: string, stream: ServerHttp2Stream, refused: (fault: Fault) => void): boolean;
}

/** A grpc-js server without a listener: connections are handed to it. */
function grpcServer(options: ServeOptions, hooks: CallHooks, limits: Limits, unknown?: Unknown) {
  const onRefused = (method: string, connection: string, fault: Fault): void => {
    const caller = hooks.callerOf(connection);
    if (caller !== undefined) hooks.onDone?.(refusedCall(method, caller, fault), fault, 0);
  };
  const refused = refusedMessages(onRefused);
  const server = new Server({
    interceptors: [refused.interceptor],
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': limits.streams,
    'grpc.max_connection_idle_ms': limits.idleMs,
    'grpc.keepalive_time_ms': limits.keepaliveMs,
    'grpc.keepalive_timeout_ms': Math.ceil(limits.keepaliveMs / 3),
    'grpc.enable_channelz': 0,
    // Megabytes of queued frames after which a connection gets no new streams.
    'grpc-node.max_session_memory': 64,
  });
  // HTTP/2 rapid reset (CVE-2023-44487) is Node's to stop; grpc-js has no option for how early.
  Object.assign((server as unknown as { commonServerOptions: object }).commonServerOptions, {
    streamResetBurst: Math.max(1_000, limits.cancelsPerSecond),
    streamResetRate: limits.cancelsPerSecond,
  });
  const methods = new Map<string, DirectMethod>();
  for (const { name, methods: handlers } of options.services) {
    const contract = loadService(name);
    const unknown = Object.keys(handlers).find((method) => !(method in contract));
    if (unknown !== undefined) throw new Error(`service ${name} has no method ${quote(unknown)}`);
    const definition: Record<string, unknown> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const [method, wire] of Object.entries(contract)) {
      const served = serve(wire, handlers[method] ?? unimplemented, hooks);
      definition[method] = { ...wire, responseSerialize: takeBytes };
      implementation[method] = adapt(wire, served, refused);
      if (!wire.requestStream) methods.set(wire.path, { decode: wire.requestDeserialize, serve: served });
    }
    server.addService(definition as ServiceDefinition, implementation);
  }
  if (options.reflection === true) {
    for (const { definition, handler } of reflection(options.services.map(({ name }) => name))) {
      server.addService({ m: { ...definition, responseSerialize: takeBytes } } as unknown as ServiceDefinition, {
        m: adapt(definition, serve(definition, handler, hooks), refused),
      });
    }
  }
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const names = new WeakMap<Http2Session, string>();
  const connectionOf = ({ session }: ServerHttp2Stream): string => (session && names.get(session)) ?? '';
  const takeDirectly = directCalls({
    methods,
    messageBytes: limits.messageBytes,
    held: requestBytes(limits.requestBytes),
    requestMs: unknown?.requestMs,
    clock: hooks.clock,
    connectionOf,
    onRefused,
  });
  let session: ServerHttp2Session | undefined;
  // The library keeps its HTTP/2 server to itself, and with it what ends a connection without breaking its streams off.
  const inside = server as unknown as {
    http2Servers: Map<Http2Server, unknown>;
    onStreamOpened(stream: ServerHttp2Stream): void;
  };
  for (const http2 of inside.http2Servers.keys()) {
    http2.on('session', (made) => {
      session = made;
    });
    const [library, ...others] = http2.listeners('stream');
    if (library === undefined || others.length > 0)
      throw new Error('grpc-js takes its streams in a way that is not known');
    http2.removeAllListeners('stream');
    http2.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...more: unknown[]) => {
      if (unknown !== undefined) {
        const connection = connectionOf(stream);
        const refused = (fault: Fault): void => onRefused(headers[':path'] ?? '', connection, fault);
        if (!unknown.admit(connection, stream, refused)) return;
      }
      if (!takeDirectly(stream, headers)) library(stream, headers, ...more);
      // The library counts the streams of each connection, and closes those that had none for long.
      else inside.onStreamOpened(stream);
    });
  }
  return {
    /** Hands a connection over; it speaks HTTP/2 when this returns. Its calls know it by `name`. */
    inject(through: Duplex, name: string): ServerHttp2Session {
      injector.injectConnection(through);
      const made = session as ServerHttp2Session;
      // What a call sees as its connection's address: the only thing of a socket that grpc-js hands on. `on` gives the
      // socket itself; `made.socket` is only a proxy for it.
      const socket = made.socket.on('error', () => {});
      Object.defineProperty(socket, 'remoteAddress', { value: name });
      Object.defineProperty(socket, 'remotePort', { value: undefined });
      names.set(made, name);
      return made;
    },
    destroy: () => injector.destroy(),
  };
}

const unimplemented: Handler = (_input, call) => {
  throw new Fault('method/unimplemented', `${call.method} is not offered here`);
};
