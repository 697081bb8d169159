/**
 * TLS handshakes, some at a time. Each costs about a millisecond of one core: ten thousand begun at once would all end at
 * the same late moment, most of them after their time, and begin again. Taken in turn, the first are done at once, and a
 * place in the queue costs nothing but a socket that nobody has read from.
 */
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import type { Server as TlsServer } from 'node:tls';
import type { Clock } from '../run/clock.ts';

/** Handshakes under way at a time. */
const atOnce = 128;
/**
 * How long one holds its place, ms: many times what an honest one takes. One that says nothing goes on until its own time
 * is over, but no longer in anybody's way: silent connections cannot keep others out.
 */
const turnMs = 250;

/**
 * The listener in front of a TLS server, which must not listen itself. It is handed connections in the order in which
 * they came; one that went away while it waited is passed over.
 */
export function handshakesInTurn(tls: TlsServer, clock: Clock): NetServer {
  const waiting: Socket[] = [];
  /** Those whose turn it is, by their other end, each with what stops the end of its turn. */
  const underWay = new Map<string, () => void>();

  const next = (): void => {
    while (underWay.size < atOnce) {
      const socket = waiting.shift();
      if (socket === undefined) return;
      if (socket.destroyed) continue;
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

  return createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
    socket.on('error', () => {});
    waiting.push(socket);
    next();
  });
}

const endOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort}`;
