/** One connection to a server, HTTP/2 on a socket, and what is known of it. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as http2Connect,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from 'node:http2';
import type { Socket } from 'node:net';

/** Bytes that a server may send on a connection, and on each of its streams, before somebody reads them. */
const window = 1 << 20;

const options: SecureClientSessionOptions = {
  settings: { enablePush: false, initialWindowSize: window },
  // MB. What is held is bounded by the window and by what is sent; a session that comes to it ends its streams at random.
  maxSessionMemory: 1024,
};

export class Connection {
  readonly #session: ClientHttp2Session;
  readonly #socket: Socket;
  /** How many calls are on it. */
  #calls = 0;
  readonly #ended: (problem: Error | undefined) => void;
  #hasEnded = false;
  /** The last stream that the server says it has looked at. */
  #lastTaken: number | undefined;
  #problem: Error | undefined;

  /**
   * @param socket connected, and nothing read from it
   * @param ready called once the server has spoken HTTP/2, unless it has ended before
   * @param ended called once, when no call may begin here any more, with what broke the connection if something did
   */
  constructor(socket: Socket, ready: (connection: Connection) => void, ended: (problem: Error | undefined) => void) {
    this.#socket = socket;
    this.#ended = ended;
    const session = http2Connect('http://localhost', { ...options, createConnection: () => socket });
    this.#session = session;
    session.once('connect', () => session.setLocalWindowSize(window));
    session.once('remoteSettings', () => {
      if (this.#hasEnded) return;
      session.unref();
      ready(this);
    });
    session.on('goaway', (_code, last) => {
      this.#lastTaken = last;
      this.#end();
    });
    session.on('error', (error) => {
      this.#problem ??= error;
    });
    session.once('close', () => this.#end());
  }

  /** Whether calls may begin here. */
  get isOpen(): boolean {
    return !this.#hasEnded && !this.#session.closed && !this.#session.destroyed;
  }

  /** Whether the connection is gone, with all that was on it. */
  get isBroken(): boolean {
    return this.#session.destroyed || this.#socket.destroyed;
  }

  /** What broke it, as far as anybody said. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  /** Whether the server has said that it did not look at a stream. */
  wasNotTaken(stream: ClientHttp2Stream): boolean {
    return this.#lastTaken !== undefined && stream.id !== undefined && stream.id > this.#lastTaken;
  }

  /** Begins a call; `left` has to be called after it. Throws when the connection has just gone. */
  begin(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    const stream = this.#session.request(headers);
    // What waits for an answer keeps the process alive, a connection that nothing is done on does not.
    if (this.#calls++ === 0) this.#session.ref();
    return stream;
  }

  /** A call is over. */
  left(): void {
    if (--this.#calls === 0) this.#session.unref();
  }

  /** Takes no calls any more, and closes when those under way are over. */
  retire(): void {
    this.#end();
    this.#session.close();
  }

  /** Breaks off whatever is on it. */
  destroy(): void {
    this.#end();
    this.#session.destroy();
    this.#socket.destroy();
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#ended(this.#problem);
  }
}
