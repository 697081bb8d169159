/** What comes back of a call, as its caller takes it: one message, or several in turn. */
import { Fault, Status } from '../errors.ts';
import type { OutgoingCall, Receiver } from './outgoing-call.ts';

type Decode = (message: Buffer) => object;

/** Throws `peer/failed` for a message that cannot be read. */
function read(path: string, decode: Decode, message: Buffer): object {
  try {
    return decode(message);
  } catch (cause) {
    throw new Fault('peer/failed', `what ${path} answered is not the message it should be`, {
      status: Status.INTERNAL,
      cause,
    });
  }
}

/** The response of a method that has exactly one. */
export class UnaryResponse implements Receiver {
  readonly #path: string;
  readonly #decode: Decode;
  readonly #resolve: (message: object) => void;
  readonly #reject: (failure: unknown) => void;
  #message: Buffer | undefined;
  of: OutgoingCall | undefined;

  constructor(path: string, decode: Decode, resolve: (message: object) => void, reject: (failure: unknown) => void) {
    this.#path = path;
    this.#decode = decode;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  take(message: Buffer): void {
    if (this.#message === undefined) this.#message = message;
    else this.of?.cancel(this.#miscounted('more than one message'));
  }

  over(failure: unknown): void {
    if (failure !== undefined) {
      this.#reject(failure);
      return;
    }
    try {
      if (this.#message === undefined) throw this.#miscounted('no message');
      this.#resolve(read(this.#path, this.#decode, this.#message));
    } catch (fault) {
      this.#reject(fault);
    }
  }

  /** https://github.com/grpc/grpc/blob/master/doc/statuscodes.md: the status of either is UNIMPLEMENTED. */
  #miscounted(what: string): Fault {
    return new Fault('peer/failed', `${this.#path} answered with ${what}, and it has exactly one`, {
      status: Status.UNIMPLEMENTED,
    });
  }
}

interface Asked {
  resolve(result: IteratorResult<object>): void;
  reject(error: unknown): void;
}

/** The responses of a method that has any number, taken one at a time; the server is held back while nobody asks for them. */
export class ResponseStream implements Receiver, AsyncIterableIterator<object> {
  readonly #path: string;
  readonly #decode: Decode;
  readonly #told: (() => void) | undefined;
  /** What has come and was not asked for: what was in one piece with a message that was. */
  #queue: Buffer[] = [];
  #waiting: Asked | undefined;
  #end: { readonly failure: unknown } | undefined;
  of: OutgoingCall | undefined;

  /** @param told of the end of the call */
  constructor(path: string, decode: Decode, told?: () => void) {
    this.#path = path;
    this.#decode = decode;
    this.#told = told;
  }

  take(message: Buffer): void {
    this.#queue.push(message);
    this.#deliver();
    if (this.#queue.length > 0) this.of?.pause();
  }

  over(failure: unknown): void {
    this.#end ??= { failure };
    this.#deliver();
    this.#told?.();
  }

  next(): Promise<IteratorResult<object>> {
    if (this.#waiting !== undefined)
      return Promise.reject(new Error('next() called again before the last one was answered'));
    const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<object>>();
    this.#waiting = { resolve, reject };
    this.#deliver();
    if (this.#queue.length === 0) this.of?.resume();
    return promise;
  }

  return(): Promise<IteratorResult<object>> {
    this.#queue = [];
    this.#end ??= { failure: undefined };
    this.of?.cancel(undefined);
    this.#deliver();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #deliver(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    const message = this.#queue.shift();
    if (message === undefined && this.#end === undefined) return;
    this.#waiting = undefined;
    if (message !== undefined) this.#give(waiting, message);
    else if (this.#end?.failure === undefined) waiting.resolve({ done: true, value: undefined });
    else waiting.reject(this.#end.failure);
  }

  #give(waiting: Asked, message: Buffer): void {
    try {
      waiting.resolve({ done: false, value: read(this.#path, this.#decode, message) });
    } catch (fault) {
      waiting.reject(fault);
      this.of?.cancel(fault);
    }
  }
}
