/**
 * TLS handshakes, some at a time. Each costs about a millisecond of one core: ten thousand begun at once would all end at
 * the same late moment, most of them after their time, and begin again. Taken in turn, the first are done at once. Who waits
 * costs a socket and the first message of the handshake; who goes away meanwhile costs nothing any more.
 */
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import type { Server as TlsServer } from 'node:tls';
import type { Clock } from '../run/clock.ts';

/** Handshakes under way at a time. */
const atOnce = 64;
/**
 * How long one holds its place, ms: many times what an honest one takes. One that stops half way goes on until its own time
 * is over, but no longer in anybody's way.
 */
const turnMs = 500;
/**
 * When the first in line has waited so long, ms, it will soon have gone, since clients give a connection twenty seconds: the
 * last in line is served before it.
 */
const longWait = 15_000;
/** Bytes. The first message is one record of TLS, 16 KB at most, and nothing follows it before the answer. */
const longestHello = 17_000;

interface Waiting {
  readonly socket: Socket;
  readonly since: number;
  /** Hands it on; gives false when there is nobody any more. */
  take(): boolean;
}

export interface Front {
  readonly listener: NetServer;
  /** Drops whoever has not had a turn yet. */
  dismiss(): void;
}

/**
 * The listener in front of a TLS server, which must not listen itself. That is handed connections in the order in which their
 * first message came; while the first in line has to wait long, the newest come first: their clients are there for longest.
 * @param silentMs how long a connection may say nothing, ms
 */
export function handshakesInTurn(tls: TlsServer, silentMs: number, clock: Clock): Front {
  const silent = new Set<Socket>();
  const line: Waiting[] = [];
  /** Those whose turn it is, by their other end, each with what stops the end of its turn. */
  const underWay = new Map<string, () => void>();

  const next = (): void => {
    while (underWay.size < atOnce) {
      const [first] = line;
      if (first === undefined) return;
      const isLong = !first.socket.destroyed && clock.now() - first.since > longWait;
      const waiting = (isLong ? line.pop() : line.shift()) as Waiting;
      if (!waiting.take()) continue;
      const { socket } = waiting;
      const end = endOf(socket);
      underWay.set(
        end,
        clock.after(turnMs, () => done(end)),
      );
      socket.once('close', () => done(end));
      tls.emit('connection', socket);
    }
  };
  const done = (end: string): void => {
    const cancel = underWay.get(end);
    if (cancel === undefined) return;
    cancel();
    underWay.delete(end);
    next();
  };
  // Before the listener of whoever made the server, which may give the socket another name.
  tls.prependListener('secureConnection', (socket) => done(endOf(socket)));
  tls.prependListener('tlsClientError', (_, socket) => done(endOf(socket)));

  const listener = createServer({ noDelay: true }, (socket) => {
    socket.on('error', ignore);
    silent.add(socket);
    const cancel = clock.after(silentMs, () => socket.destroy());
    const heard = (): void => {
      cancel();
      silent.delete(socket);
    };
    socket.once('close', heard);
    whenSpoken(socket, (take) => {
      socket.off('close', heard);
      heard();
      line.push({ socket, since: clock.now(), take });
      next();
    });
  });
  return {
    listener,
    dismiss() {
      for (const socket of silent) socket.destroy();
      for (const { socket } of line.splice(0)) socket.destroy();
    },
  };
}

/** Tells once the other end has said something, with what hands the socket on as if nothing had been read of it. */
function whenSpoken(socket: Socket, told: (take: () => boolean) => void): void {
  const said: Buffer[] = [];
  let length = 0;
  const take = (): boolean => {
    socket.off('data', hear);
    if (socket.destroyed) return false;
    socket.pause();
    socket.unshift(Buffer.concat(said));
    return true;
  };
  // It is read on, so that its end is seen.
  const hear = (bytes: Buffer): void => {
    said.push(bytes);
    length += bytes.length;
    if (length > longestHello) socket.destroy();
    else if (said.length === 1) told(take);
  };
  socket.on('data', hear);
}

/** Out here, since a listener keeps what is around it for as long as the connection lasts. */
const ignore = (): void => {};

const endOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort}`;
