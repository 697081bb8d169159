/**
 * One call of ours, on its HTTP/2 stream: headers and messages out, messages and a status back, within a deadline.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import {
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { Fault, quote, Status } from '../errors.ts';
import type { Clock } from '../run/clock.ts';
import { httpEnding, isRefused, resetEnding } from './call-ending.ts';
import type { Connection } from './connection.ts';
import type { CurrentConnection, Waiting } from './current-connection.ts';
import { MessageReader } from './message-reader.ts';
import { requestHeaders } from './request-headers.ts';
import { type CallStatus, faultOfStatus, statusIn } from './status.ts';

export interface CallOptions {
  /** From now. Without one a call may take for ever. */
  readonly deadlineMs?: number;
  /** Lower-case names. The value of a name that ends in `-bin` travels as base64 of its UTF-8. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Aborting it cancels the call. */
  readonly signal?: AbortSignal;
}

/** Who is told of what comes back. */
export interface Receiver {
  /** A message, serialised. */
  take(message: Buffer): void;
  /** Once, and last. `failure` is undefined after status OK. */
  over(failure: unknown): void;
}

/** Bytes of a message. Servers send at most 4 MiB to peers of theirs; administrators may be sent more. */
const largestMessage = 64 << 20;
/** Bytes that are kept until the server has answered, in case that it gives a stream back unread. */
const mostKept = 1 << 20;

interface Frame {
  readonly bytes: Buffer;
  /** Told when the transport has taken it, or never will. */
  readonly done: ((error?: Error | null) => void) | undefined;
}

const callOf = Symbol('call');
type Stream = ClientHttp2Stream & { [callOf]?: OutgoingCall | undefined };

export class OutgoingCall implements Waiting {
  readonly #way: CurrentConnection;
  readonly #path: string;
  readonly #options: CallOptions;
  readonly #receiver: Receiver;
  readonly #reader: MessageReader;
  readonly #clock: Clock;
  readonly #deadline: number | undefined;
  #cancelDeadline: (() => void) | undefined;
  #unfollow: (() => void) | undefined;
  #connection: Connection | undefined;
  #stream: Stream | undefined;
  /** What was to be sent until now, as long as it may have to be sent (again). */
  #frames: Frame[] | undefined = [];
  #kept = 0;
  #isEnded = false;
  #isPaused = false;
  #hasBegunAgain = false;
  #isOver = false;
  #httpStatus: number | undefined;
  /** What came before the headers were told of. */
  #early: Buffer[] | undefined;
  #trailers: IncomingHttpHeaders | undefined;

  /** @param clock by which the deadline is kept */
  constructor(way: CurrentConnection, path: string, options: CallOptions, receiver: Receiver, clock: Clock) {
    this.#way = way;
    this.#path = path;
    this.#options = options;
    this.#receiver = receiver;
    this.#clock = clock;
    this.#reader = new MessageReader(largestMessage, (message) => {
      if (!this.#isOver) this.#receiver.take(message);
    });
    const { deadlineMs } = options;
    if (deadlineMs !== undefined) this.#deadline = clock.now() + deadlineMs;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** To be called once. With a request it is the only one, and with it this side ends. */
  begin(request?: Buffer): void {
    if (request !== undefined) {
      this.#frames?.push({ bytes: request, done: undefined });
      this.#isEnded = true;
    }
    const { deadlineMs, signal } = this.#options;
    if (deadlineMs !== undefined) this.#cancelDeadline = this.#clock.after(deadlineMs, () => this.#late());
    if (signal !== undefined) {
      const abort = (): void => this.cancel(signal.reason);
      if (signal.aborted) {
        abort();
        return;
      }
      signal.addEventListener('abort', abort, { once: true });
      this.#unfollow = () => signal.removeEventListener('abort', abort);
    }
    this.#look();
  }

  /** One more message. */
  send(bytes: Buffer, done: (error?: Error | null) => void): void {
    this.#frames?.push({ bytes, done });
    this.#kept += bytes.length;
    if (this.#stream === undefined) return;
    if (this.#kept > mostKept) this.#frames = undefined;
    this.#stream.write(bytes, done);
  }

  /** No more messages. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#stream?.end();
  }

  /** Ends the call with a failure of the caller's choice; the server is told that it is cancelled. */
  cancel(failure: unknown): void {
    this.#finish(failure, constants.NGHTTP2_CANCEL);
  }

  /** Takes no more messages but those that have come: soon the server has to stop. */
  pause(): void {
    if (this.#trailers !== undefined) return;
    this.#isPaused = true;
    this.#stream?.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#stream?.resume();
  }

  connected(connection: Connection): void {
    try {
      this.#open(connection);
    } catch (cause) {
      if (cause instanceof Fault) this.#finish(cause);
      // It went between the look at it and now, with nothing sent.
      else if (!connection.isOpen && !this.#hasBegunAgain) this.#again();
      else this.#finish(this.#way.unreached(cause));
    }
  }

  failed(fault: Fault): void {
    this.#finish(fault);
  }

  /** Takes the connection that there is, or waits for one. */
  #look(): void {
    try {
      const connection = this.#way.take(this);
      if (connection !== undefined) this.connected(connection);
    } catch (fault) {
      this.#finish(fault);
    }
  }

  #open(connection: Connection): void {
    const stream: Stream = connection.begin(this.#headers());
    this.#connection = connection;
    this.#stream = stream;
    stream[callOf] = this;
    stream.on('response', onResponse);
    stream.on('data', onData);
    stream.on('trailers', onTrailers);
    stream.on('end', onEnd);
    stream.on('error', onError);
    stream.on('close', onClose);
    if (this.#isPaused) stream.pause();
    const frames = this.#frames as Frame[];
    const [first] = frames;
    if (this.#isEnded && frames.length === 1 && first !== undefined) {
      stream.end(first.bytes, first.done);
      return;
    }
    for (const { bytes, done } of frames) stream.write(bytes, done);
    if (this.#kept > mostKept) this.#frames = undefined;
    if (this.#isEnded) stream.end();
  }

  #headers(): OutgoingHttpHeaders {
    const left = this.#deadline === undefined ? undefined : this.#deadline - this.#clock.now();
    return requestHeaders(this.#way, this.#path, left, this.#options.metadata);
  }

  responded(headers: IncomingHttpHeaders & IncomingHttpStatusHeader, flags: number): void {
    this.#frames = undefined;
    this.#httpStatus = headers[':status'];
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) {
      this.#conclude(headers);
      return;
    }
    const type = headers['content-type'];
    if (this.#httpStatus === 200 && !type?.startsWith('application/grpc')) {
      const what = type === undefined ? 'no content-type' : `content-type ${quote(type)}`;
      this.#fail({ code: Status.UNKNOWN, message: `the other end answered with ${what}, which is not gRPC` });
    }
    const early = this.#early;
    this.#early = undefined;
    for (const bytes of early ?? []) this.received(bytes);
  }

  received(bytes: Buffer): void {
    // Node tells of headers a tick later than they come, and at times of what came with them before that.
    if (this.#httpStatus === undefined) {
      this.#early ??= [];
      this.#early.push(bytes);
      return;
    }
    // The page of a front end says nothing to us.
    if (this.#httpStatus !== 200 || this.#isOver) return;
    try {
      this.#reader.push(bytes);
    } catch (fault) {
      this.cancel(fault);
    }
  }

  /** Nothing comes after them, and what came before is here: it is not left in a stream that then never ends. */
  trailersCame(trailers: IncomingHttpHeaders): void {
    this.#trailers = trailers;
    this.#isPaused = false;
    this.#stream?.resume();
  }

  /** Everything that came has been read. */
  ended(): void {
    if (this.#trailers !== undefined) {
      this.#conclude(this.#trailers);
      return;
    }
    // A connection that breaks ends its streams first and closes them after: one turn tells the two apart.
    setImmediate(() => {
      if (!this.#isOver && this.#connection?.isBroken !== true && this.#stream?.closed !== true) this.#conclude({});
    });
  }

  closed(): void {
    const [stream, connection] = [this.#stream, this.#connection];
    if (this.#isOver || stream === undefined || connection === undefined) return;
    if (this.#trailers !== undefined) {
      this.#conclude(this.#trailers);
      return;
    }
    const code = stream.rstCode ?? constants.NGHTTP2_NO_ERROR;
    const wasNotTaken = isRefused(code) || connection.wasNotTaken(stream);
    if (wasNotTaken && this.#frames !== undefined && !this.#hasBegunAgain) this.#again();
    else if (isRefused(code)) this.#finish(faultOfStatus(resetEnding(code)));
    // A server that leaves closes its streams before it closes the connection.
    else if (code === constants.NGHTTP2_NO_ERROR) setImmediate(() => this.#brokeOff(code, connection));
    else this.#brokeOff(code, connection);
  }

  #brokeOff(code: number, connection: Connection): void {
    if (connection.isBroken || (this.#httpStatus === undefined && !connection.isOpen))
      this.#finish(this.#way.unreached(connection.problem));
    else if (code === constants.NGHTTP2_NO_ERROR) this.#conclude({});
    else this.#finish(faultOfStatus(resetEnding(code)));
  }

  /** The server did not look at the call: it is made once more, as if it had not been (gRFC A6, transparent retries). */
  #again(): void {
    this.#hasBegunAgain = true;
    this.#leave();
    this.#look();
  }

  #conclude(trailers: IncomingHttpHeaders): void {
    const status = statusIn(trailers) ?? httpEnding(this.#httpStatus ?? 200);
    if (status.code !== Status.OK) this.#finish(faultOfStatus(status), constants.NGHTTP2_NO_ERROR);
    else if (this.#reader.isMidway)
      this.#fail({ code: Status.INTERNAL, message: 'the call ended in the middle of a message' });
    else this.#finish(undefined, constants.NGHTTP2_NO_ERROR);
  }

  #fail(status: CallStatus): void {
    this.#finish(faultOfStatus(status), constants.NGHTTP2_CANCEL);
  }

  #late(): void {
    const { deadlineMs = 0 } = this.#options;
    const what = this.#stream === undefined ? 'no connection was made' : 'no answer came';
    this.cancel(new Fault('call/late', `${what} within ${deadlineMs / 1000} seconds`));
  }

  /** @param reset the code with which the stream is closed, should it still be open */
  #finish(failure: unknown, reset?: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelDeadline?.();
    this.#unfollow?.();
    this.#frames = undefined;
    const stream = this.#stream;
    if (stream === undefined) this.#way.leave(this);
    else {
      this.#leave();
      // What is left to read is nobody's.
      stream.resume();
      if (reset !== undefined && !stream.closed && !(stream.writableFinished && stream.readableEnded))
        stream.close(reset);
    }
    this.#receiver.over(failure);
  }

  /** Node may keep a stream until the old generation is collected, and with it whatever is reached from there. */
  #leave(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    if (stream !== undefined) stream[callOf] = undefined;
    this.#connection?.left();
    this.#connection = undefined;
  }
}

// One of each for all calls: a call has no functions of its own to hold on to.
function onResponse(this: Stream, headers: IncomingHttpHeaders & IncomingHttpStatusHeader, flags: number): void {
  this[callOf]?.responded(headers, flags);
}
function onData(this: Stream, bytes: Buffer): void {
  this[callOf]?.received(bytes);
}
function onTrailers(this: Stream, trailers: IncomingHttpHeaders): void {
  this[callOf]?.trailersCame(trailers);
}
function onEnd(this: Stream): void {
  this[callOf]?.ended();
}
/** What breaks a stream also closes it. */
function onError(): void {}
function onClose(this: Stream): void {
  this[callOf]?.closed();
}
