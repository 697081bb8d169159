/**
 * A grpc-js server without a listener: connections are handed to it, and plain calls are taken from it before they become
 * calls of its own.
 */
import type { Http2Server, Http2Session, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { Fault, quote } from '../errors.ts';
import { type CallHooks, type Handler, refusedCall, serve } from './call.ts';
import { type DirectMethod, directCalls } from './direct-call.ts';
import { adapt, takeBytes } from './library-call.ts';
import type { Limits } from './limits.ts';
import { loadService } from './load.ts';
import { reflection } from './reflection.ts';
import { refusedMessages } from './refused-messages.ts';
import { requestBytes } from './request-bytes.ts';

/** The handlers of one service. Methods of the contract that are not named here answer UNIMPLEMENTED. */
export interface Service {
  /** The full name, such as `spire.api.server.entry.v1.Entry`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, Handler>>;
}

export interface Offered {
  readonly services: readonly Service[];
  /** Also serve gRPC reflection of these services. */
  readonly reflection?: boolean;
}

/** What is done with the calls of those who proved nothing. */
export interface Unknown {
  readonly requestMs: number;
  /** Whether a call is taken; one that is not has been answered, and `refused` told why. */
  admit(connection: string, stream: ServerHttp2Stream, refused: (fault: Fault) => void): boolean;
}

/** @param unknown for a server of those who proved nothing */
export function grpcServer(options: Offered, hooks: CallHooks, limits: Limits, unknown?: Unknown) {
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
