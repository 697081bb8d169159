/**
 * gRPC on connections that are handed over: plain calls are answered here, on their HTTP/2 streams, and the others given to
 * the library.
 */
import {
  createServer,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import type { MethodDefinition } from '@grpc/grpc-js';
import { Fault, quote } from '../errors.ts';
import { systemClock } from '../run/clock.ts';
import { attend } from './attend.ts';
import { type CallHooks, type Handler, refusedCall, type Serve, serve } from './call.ts';
import { type DirectMethod, directCalls } from './direct-call.ts';
import type { TakeStream } from './library-streams.ts';
import type { Limits } from './limits.ts';
import { loadService } from './load.ts';
import { reflection } from './reflection.ts';
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

/** A method as the contract has it, and what answers it. */
export interface ServedMethod {
  readonly wire: MethodDefinition<object, object>;
  readonly serve: Serve;
}

/** What is known of a connection. */
interface Connection {
  readonly name: string;
  opened(stream: ServerHttp2Stream): void;
}

/** @param unknown for a server of those who proved nothing */
export function grpcServer(options: Offered, hooks: CallHooks, limits: Limits, unknown?: Unknown) {
  const onRefused = (method: string, connection: string, fault: Fault): void => {
    const caller = hooks.callerOf(connection);
    if (caller !== undefined) hooks.onDone?.(refusedCall(method, caller, fault), fault, 0);
  };
  const services = servedMethods(options, hooks);
  const plain = new Map<string, DirectMethod>();
  for (const methods of services.values())
    for (const { wire, serve } of methods.values())
      if (!wire.requestStream) plain.set(wire.path, { decode: wire.requestDeserialize, serve });

  const connections = new WeakMap<Http2Session, Connection>();
  const connectionOf = ({ session }: ServerHttp2Stream): string => (session && connections.get(session)?.name) ?? '';
  const takeDirectly = directCalls({
    methods: plain,
    messageBytes: limits.messageBytes,
    held: requestBytes(limits.requestBytes),
    requestMs: unknown?.requestMs,
    clock: hooks.clock,
    connectionOf,
    onRefused,
  });
  let library: TakeStream | undefined;
  let loading: Promise<TakeStream> | undefined;
  const giveToLibrary: TakeStream = (stream, headers, ...more) => {
    if (library !== undefined) {
      library(stream, headers, ...more);
      return;
    }
    // Until it is there, a stream keeps what comes; one that breaks off meanwhile is nobody's.
    stream.on('error', () => {});
    loading ??= import('./library-streams.ts').then(({ libraryStreams }) => {
      library = libraryStreams(services, limits, onRefused);
      return library;
    });
    void loading.then((take) => {
      if (!stream.destroyed) take(stream, headers, ...more);
    });
  };

  const sessions = new Set<ServerHttp2Session>();
  let session: ServerHttp2Session | undefined;
  const http2 = createServer({
    settings: { maxConcurrentStreams: limits.streams },
    maxSendHeaderBlockLength: Number.MAX_SAFE_INTEGER,
    // Megabytes of queued frames after which a connection gets no new streams.
    maxSessionMemory: 64,
    // HTTP/2 rapid reset (CVE-2023-44487).
    streamResetBurst: Math.max(1_000, limits.cancelsPerSecond),
    streamResetRate: limits.cancelsPerSecond,
  });
  http2.setTimeout(0);
  http2.on('session', (made) => {
    session = made;
  });
  http2.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...more: unknown[]) => {
    if (unknown !== undefined) {
      const refused = (fault: Fault): void => onRefused(headers[':path'] ?? '', connectionOf(stream), fault);
      if (!unknown.admit(connectionOf(stream), stream, refused)) return;
    }
    if (stream.session) connections.get(stream.session)?.opened(stream);
    if (!takeDirectly(stream, headers)) giveToLibrary(stream, headers, ...more);
  });
  return {
    /** Hands a connection over; it speaks HTTP/2 when this returns. Its calls know it by `name`. */
    inject(through: Duplex, name: string): ServerHttp2Session {
      http2.emit('connection', through);
      const made = session as ServerHttp2Session;
      // What a call sees as its connection's address: the only thing of a socket that grpc-js hands on. `on` gives the
      // socket itself; `made.socket` is only a proxy for it.
      const socket = made.socket.on('error', () => {});
      Object.defineProperty(socket, 'remoteAddress', { value: name });
      Object.defineProperty(socket, 'remotePort', { value: undefined });
      connections.set(made, { name, opened: attend(made, limits, systemClock) });
      sessions.add(made);
      made.once('close', () => sessions.delete(made));
      return made;
    },
    /** Ends each connection when its streams are over; no new ones are taken. */
    destroy(): void {
      for (const each of sessions) each.close();
    },
  };
}

function servedMethods(
  { services, reflection: isReflected }: Offered,
  hooks: CallHooks,
): ReadonlyMap<string, ReadonlyMap<string, ServedMethod>> {
  const served = new Map<string, Map<string, ServedMethod>>();
  for (const { name, methods: handlers } of services) {
    const contract = loadService(name);
    const unknown = Object.keys(handlers).find((method) => !(method in contract));
    if (unknown !== undefined) throw new Error(`service ${name} has no method ${quote(unknown)}`);
    const methods = new Map<string, ServedMethod>();
    for (const [method, wire] of Object.entries(contract))
      methods.set(method, { wire, serve: serve(wire, handlers[method] ?? unimplemented, hooks) });
    served.set(name, methods);
  }
  if (isReflected === true)
    for (const { definition, handler } of reflection(services.map(({ name }) => name)))
      served.set(definition.path, new Map([['m', { wire: definition, serve: serve(definition, handler, hooks) }]]));
  return served;
}

const unimplemented: Handler = (_input, call) => {
  throw new Fault('method/unimplemented', `${call.method} is not offered here`);
};
