/**
 * Plain calls, carried on their HTTP/2 stream: a method with one request, which comes uncompressed with the usual headers.
 * That is nearly every call there is, and costs half of what it does through grpc-js's own call objects, with the message
 * and the status in one write. What is not plain is left to grpc-js. Both follow the same text:
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Fault, Status } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import type { Carrier, Serve } from './call.ts';
import { type Encoded, prefixLength } from './encoded.ts';
import { noRoom, type RequestBytes } from './request-bytes.ts';
import { trailersOf } from './status.ts';

export interface DirectMethod {
  /** Throws on malformed bytes. */
  decode(message: Buffer): object;
  readonly serve: Serve;
}

export interface DirectOptions {
  /** By their full names. */
  readonly methods: ReadonlyMap<string, DirectMethod>;
  /** The largest message received. */
  readonly messageBytes: number;
  /** Of all calls together. */
  readonly held: RequestBytes;
  /** Milliseconds in which the whole request has to come; without it, as long as its connection lasts. */
  readonly requestMs?: number | undefined;
  readonly clock: Clock;
  connectionOf(stream: ServerHttp2Stream): string;
  /** Told of a call that never reached its handler. */
  onRefused(method: string, connection: string, fault: Fault): void;
}

/** Gives the function that takes a stream, if it is a plain call. */
export function directCalls(
  options: DirectOptions,
): (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean {
  return (stream, headers) => {
    const path = headers[':path'] as string;
    const method = options.methods.get(path);
    if (method === undefined || !isPlain(headers)) return false;
    new DirectCall(stream, headers, path, method, options);
    return true;
  };
}

function isPlain(headers: IncomingHttpHeaders): boolean {
  const type = headers['content-type'];
  if (type !== 'application/grpc' && type !== 'application/grpc+proto') return false;
  const encoding = headers['grpc-encoding'];
  if (encoding !== undefined && encoding !== 'identity') return false;
  const timeout = headers['grpc-timeout'];
  return timeout === undefined || (typeof timeout === 'string' && timeoutShape.test(timeout));
}

const timeoutShape = /^\d{1,8}[HMSmun]$/;
const milliseconds: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Answers a stream that nothing has been sent on yet. */
export function refuseStream(stream: ServerHttp2Stream, fault: Fault): void {
  stream.on('error', () => {});
  stream.resume();
  stream.respond({ ...trailersOnly, ...trailersOf(fault) }, endStream);
  // What the caller still has to say is not awaited.
  stream.close();
}

const responseHeaders: OutgoingHttpHeaders = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-accept-encoding': 'identity,deflate,gzip',
  'grpc-encoding': 'identity',
};
const trailersOnly: OutgoingHttpHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' };
const okTrailers: OutgoingHttpHeaders = { 'grpc-status': 0, 'grpc-message': 'OK' };
/** So many pieces of a request are put together to one: each costs more than the bytes that a caller may put into it. */
const mostPieces = 64;
const trailersFollow = { waitForTrailers: true };
const endStream = { endStream: true };

class DirectCall implements Carrier {
  readonly connection: string;
  readonly deadline: number | undefined;
  readonly #stream: ServerHttp2Stream;
  readonly #headers: IncomingHttpHeaders;
  readonly #path: string;
  readonly #method: DirectMethod;
  readonly #options: DirectOptions;
  /** What has come of the request, and its length. */
  #parts: Buffer[] = [];
  #length = 0;
  /** Of the parts, those at the end that were not put together. */
  #pieces = 0;
  #told: (() => void) | undefined;
  #cancelDeadline: (() => void) | undefined;
  /** Set while the request of a caller is awaited who may not take all the time there is. */
  #cancelWait: (() => void) | undefined;
  #refusal: Fault | undefined;
  /** Whether the end was sent, or nothing can be sent any more. */
  #isEnded = false;
  #isOver = false;

  constructor(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    path: string,
    method: DirectMethod,
    options: DirectOptions,
  ) {
    this.#stream = stream;
    this.#headers = headers;
    this.#path = path;
    this.#method = method;
    this.#options = options;
    this.connection = options.connectionOf(stream);
    const timeout = headers['grpc-timeout'] as string | undefined;
    if (timeout !== undefined) {
      const ms = Number(timeout.slice(0, -1)) * (milliseconds[timeout.slice(-1)] as number);
      this.deadline = systemClock.now() + ms;
      this.#cancelDeadline = systemClock.after(ms, () => this.#late());
    }
    const { requestMs } = options;
    if (requestMs !== undefined)
      this.#cancelWait = options.clock.after(requestMs, () =>
        this.#refuse(new Fault('call/late', `the request did not come within ${requestMs / 1000} seconds`)),
      );
    // What breaks a stream also closes it.
    stream.on('error', () => {});
    stream.on('close', () => this.#closed());
    stream.on('data', (bytes: Buffer) => this.#take(bytes));
    stream.on('end', () => this.#requested());
  }

  get isOver(): boolean {
    return this.#isOver || this.#stream.destroyed || this.#stream.closed;
  }

  get refusal(): Fault | undefined {
    return this.#refusal;
  }

  header(name: string): string | undefined {
    const value = this.#headers[name.toLowerCase()];
    // The value of a binary header is no text.
    if (typeof value !== 'string' || name.endsWith('-bin')) return undefined;
    const comma = value.indexOf(',');
    return comma < 0 ? value : value.slice(0, comma).trim();
  }

  onOver(told: () => void): void {
    this.#told = told;
  }

  send(message: Encoded, done: (isLost: boolean) => void): void {
    if (this.#isEnded || this.isOver) {
      done(true);
      return;
    }
    if (!this.#stream.headersSent) this.#stream.respond(responseHeaders, trailersFollow);
    this.#stream.write(message.frame, (error) => done(Boolean(error)));
  }

  finish(): void {
    this.#end(okTrailers);
  }

  fail(fault: Fault): void {
    this.#end(trailersOf(fault));
  }

  #end(trailers: OutgoingHttpHeaders): void {
    if (this.#isEnded || this.isOver) return;
    this.#release();
    // Node may keep a stream until the old generation is collected, and with it whatever is reached from here.
    this.#told = undefined;
    const stream = this.#stream;
    if (!stream.headersSent) {
      stream.respond({ ...trailersOnly, ...trailers }, endStream);
      return;
    }
    stream.once('wantTrailers', () => stream.sendTrailers(trailers));
    stream.end();
  }

  #take(bytes: Buffer): void {
    if (this.#isEnded) return;
    if (!this.#options.held.take(bytes.length)) {
      this.#refuse(noRoom);
      return;
    }
    this.#parts.push(bytes);
    this.#length += bytes.length;
    if (++this.#pieces === mostPieces) {
      this.#parts.push(Buffer.concat(this.#parts.splice(-mostPieces)));
      this.#pieces = 0;
    }
    if (this.#length < prefixLength) return;
    const start = this.#joined();
    const announced = start.readUInt32BE(1);
    const { messageBytes } = this.#options;
    if (announced > messageBytes)
      this.#refuse(new Fault('limit/exceeded', `Received message larger than max (${announced} vs ${messageBytes})`));
    else if (start[0] !== 0) this.#refuse(invalid(Status.INTERNAL, 'the message is compressed and nothing says how'));
    else if (this.#length > prefixLength + announced)
      this.#refuse(invalid(Status.UNIMPLEMENTED, 'the method takes one message and the call has brought more'));
  }

  /** The start of the request; parts that are small are put together first. */
  #joined(): Buffer {
    const [first, second] = this.#parts as [Buffer, Buffer];
    if (first.length >= prefixLength) return first;
    this.#parts.splice(0, 2, Buffer.concat([first, second]));
    return this.#joined();
  }

  #requested(): void {
    if (this.#isEnded || this.isOver) return;
    this.#cancelWait?.();
    const whole = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    this.#parts = [];
    if (whole.length < prefixLength || whole.length < prefixLength + whole.readUInt32BE(1)) {
      this.#refuse(invalid(Status.UNIMPLEMENTED, 'the method takes one message and the call has brought none'));
      return;
    }
    let request: object | undefined;
    try {
      request = this.#method.decode(whole.subarray(prefixLength));
    } catch {
      // Bytes of whoever calls.
    }
    if (request === undefined) this.#refuse(invalid(Status.INTERNAL, 'the message is not what the method takes'));
    else this.#method.serve(this, request);
  }

  /** Ends the call before its handler is given it. */
  #refuse(fault: Fault): void {
    this.#parts = [];
    this.#options.onRefused(this.#path, this.connection, fault);
    this.fail(fault);
    // What may come of the request still is not waited for: the stream would count as open until it did.
    this.#stream.close();
  }

  #late(): void {
    if (this.#isEnded) return;
    const told = this.#told;
    const late = new Fault('call/late', 'the deadline passed');
    if (told === undefined) {
      this.#refuse(late);
      return;
    }
    this.fail(late);
    this.#refusal = late;
    this.#isOver = true;
    told();
  }

  /** The end is here: nothing is waited for, and the request is held no longer. */
  #release(): void {
    this.#isEnded = true;
    this.#cancelDeadline?.();
    this.#cancelWait?.();
    this.#options.held.give(this.#length);
  }

  #closed(): void {
    this.#isOver = true;
    if (this.#isEnded) return;
    this.#release();
    const told = this.#told;
    this.#told = undefined;
    told?.();
  }
}

const invalid = (status: typeof Status.INTERNAL | typeof Status.UNIMPLEMENTED, message: string): Fault =>
  new Fault('input/invalid', message, { status });
