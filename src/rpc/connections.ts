/**
 * The connections of one listener: which caller is behind each, what a connection may cost, and how they end.
 */
import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Server as NetServer, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Fault } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import { type Random, systemRandom } from '../run/random.ts';
import { growOld } from './ageing.ts';
import type { Call, CallHooks } from './call.ts';
import type { Caller } from './caller.ts';
import { refuseStream } from './direct-call.ts';
import { grpcServer, type Offered } from './grpc-server.ts';
import { anonymousLimits, type Limits, never, smaller } from './limits.ts';
import { type StrangerLimits, strangerLimits, strangers } from './strangers.ts';

export interface ServeOptions extends Offered {
  /** Runs before each handler; what it throws is the answer. */
  readonly guard?: (call: Call) => unknown;
  /** Told once a call: undefined when it worked. */
  readonly onDone?: (call: Call, fault: Fault | undefined, ms: number) => void;
  /** Told of a call that failed. */
  readonly onFault?: (call: Call, fault: Fault, ms: number) => void;
  /** Told of a connection that was refused before it could carry a call. `from` is an address, or empty. */
  readonly onRefused?: (fault: Fault, from: string) => void;
  /** Ends a connection with the certificate of its caller: its streams, with this, and a second later itself. */
  readonly endsWithSvid?: Fault;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly limits?: Partial<Limits>;
  /** What those may hold together who have proved nothing. */
  readonly strangers?: Partial<StrangerLimits>;
}

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
