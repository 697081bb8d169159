/**
 * One incoming call: who makes it, what a handler sees of it, and how its outcome goes back. A handler is a plain
 * function over messages; nothing of gRPC's own objects reaches it.
 */
import type { EventEmitter } from 'node:events';
import type {
  MethodDefinition,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedHandleCall,
} from '@grpc/grpc-js';
import { asFault, Fault } from '../errors.ts';
import type { Clock } from '../run/clock.ts';
import type { Caller } from './caller.ts';
import { messagesOf } from './messages.ts';
import type { RefusedMessages } from './refused-messages.ts';
import { serviceError } from './status.ts';

export interface Call {
  /** The full name, such as `/spire.api.server.agent.v1.Agent/ListAgents`. */
  readonly method: string;
  readonly caller: Caller;
  /** Aborted when the caller goes away, its deadline passes, or the server closes; never after the answer was given. */
  readonly signal: AbortSignal;
  /** A header's first value; undefined when it is absent. */
  metadata(name: string): string | undefined;
  /** Unix milliseconds. */
  readonly deadline?: number | undefined;
}

/** Sends one message of a stream. Resolves when the transport has taken it; rejects when the caller is gone. Await it. */
export type Send = (message: object) => Promise<void>;

/**
 * Unary: `(request, call) => response`. Server stream: `(request, call, send) => end`. Both ways:
 * `(requests: AsyncIterable, call, send) => end`. Which it is follows from the contract. May return promises.
 */
// biome-ignore lint/suspicious/noExplicitAny: each handler names the generated type of its message.
export type Handler = (input: any, call: Call, send: Send) => unknown;

/** A message that is already serialised, such as a response that many callers get. */
export class Encoded {
  readonly bytes: Buffer;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
}

/** Marks bytes as a serialised message, which handlers return or send in place of an object. */
export function encoded(bytes: Buffer): Encoded {
  return new Encoded(bytes);
}

export interface CallHooks {
  readonly clock: Clock;
  /** The caller of the connection with this name. */
  callerOf(connection: string): Caller | undefined;
  /** Runs before each handler; what it throws is the answer. */
  readonly guard?: ((call: Call) => void | Promise<void>) | undefined;
  /** Told once a call, when its outcome is known: undefined when it worked. */
  readonly onDone?: ((call: Call, fault: Fault | undefined, ms: number) => void) | undefined;
  readonly refused: RefusedMessages;
  /** Told of a stream that was opened on the connection with this name, and how it is ended; and of its end. */
  opened(connection: string, end: (reason: Fault) => void): void;
  over(connection: string, end: (reason: Fault) => void): void;
  /** Why a stream cannot be opened any more, once the server is closing. */
  closing(): Fault | undefined;
}

type OutgoingStream = ServerWritableStream<object, Buffer> | ServerDuplexStream<object, Buffer>;
type Surface = ServerUnaryCall<object, Buffer> | OutgoingStream;

/** Makes what grpc-js wants of a handler. The responses' serialiser has to be `takeBytes`. */
export function adapt(method: MethodDefinition<object, object>, handler: Handler, hooks: CallHooks): UntypedHandleCall {
  const encode = (message: unknown): Buffer =>
    message instanceof Encoded ? message.bytes : method.responseSerialize((message ?? {}) as object);
  if (!method.responseStream) {
    if (method.requestStream)
      throw new Error(`${method.path}: client streams without a response stream are not supported`);
    return unary(method.path, handler, encode, hooks);
  }
  return streaming(method, handler, encode, hooks);
}

/** The serialiser for messages which `adapt` has encoded already, so that a message that cannot be encoded is a fault. */
export const takeBytes = (bytes: Buffer): Buffer => bytes;

function unary(
  path: string,
  handler: Handler,
  encode: (message: unknown) => Buffer,
  hooks: CallHooks,
): UntypedHandleCall {
  return ((surface: ServerUnaryCall<object, Buffer>, callback: sendUnaryData<Buffer>) => {
    const call = incoming(path, surface, hooks, true);
    if (call === undefined) return callback(serviceError(unknownCaller()));
    const failed = (error: unknown): void => {
      const fault = call.end(error, true);
      callback(serviceError(fault as Fault));
    };
    const worked = (response: unknown): void => {
      let bytes: Buffer;
      try {
        bytes = encode(response);
      } catch (error) {
        failed(error);
        return;
      }
      call.end();
      callback(null, bytes);
    };
    try {
      const gate = hooks.guard?.(call);
      const result =
        gate instanceof Promise
          ? gate.then(() => handler(surface.request, call, noStream))
          : handler(surface.request, call, noStream);
      if (result instanceof Promise) result.then(worked, failed);
      else worked(result);
    } catch (error) {
      failed(error);
    }
  }) as UntypedHandleCall;
}

function streaming(
  method: MethodDefinition<object, object>,
  handler: Handler,
  encode: (message: unknown) => Buffer,
  hooks: CallHooks,
): UntypedHandleCall {
  return (async (surface: OutgoingStream) => {
    const call = incoming(method.path, surface, hooks, false);
    if (call === undefined) return surface.emit('error', serviceError(unknownCaller()));
    const { send, stop } = sender(surface, encode);
    const { promise: stopped, reject } = Promise.withResolvers<never>();
    const end = (reason: Fault): void => {
      call.abort(reason);
      stop(reason);
      reject(reason);
    };
    stopped.catch(() => {});
    surface.once('cancelled', () => end(callerGone));
    hooks.opened(call.connection, end);
    const closing = hooks.closing();
    if (closing !== undefined) end(closing);
    const work = async (): Promise<void> => {
      const gate = hooks.guard?.(call);
      if (gate instanceof Promise) await gate;
      await handler('request' in surface ? surface.request : requestsOf(surface), call, send);
    };
    try {
      await Promise.race([work(), stopped]);
      call.end();
      surface.end();
    } catch (error) {
      const fault = call.end(error, true);
      if (!surface.cancelled && fault !== undefined) surface.emit('error', serviceError(fault));
    } finally {
      hooks.over(call.connection, end);
    }
    return undefined;
  }) as unknown as UntypedHandleCall;
}

/** A send is done when the transport has taken the message, so that a caller who does not read costs one message. */
function sender(
  surface: OutgoingStream,
  encode: (message: unknown) => Buffer,
): { send: Send; stop(reason: Fault): void } {
  const underWay = new Set<(reason: Fault) => void>();
  const send: Send = (message) => {
    const sent = new Promise<void>((resolve, reject) => {
      const bytes = encode(message);
      if (surface.cancelled || surface.destroyed || surface.writableEnded) return reject(callerGone);
      underWay.add(reject);
      surface.write(bytes, (error: Error | null | undefined) => {
        underWay.delete(reject);
        if (error) reject(callerGone);
        else resolve();
      });
    });
    // A handler which does not await its last message must not bring the program down when the caller is gone.
    sent.catch(() => {});
    return sent;
  };
  const stop = (reason: Fault): void => {
    for (const reject of underWay) reject(reason);
    underWay.clear();
  };
  return { send, stop };
}

function requestsOf(surface: ServerDuplexStream<object, Buffer>): AsyncIterable<object> {
  // Read ahead by one message instead of sixteen: they may be 4 MiB each, and the caller chooses how many streams.
  const state = (surface as unknown as { _readableState?: { highWaterMark: number } })._readableState;
  if (state !== undefined) state.highWaterMark = 1;
  return messagesOf(
    surface,
    () => callerGone,
    () => surface.resume(),
  );
}

const noStream: Send = () => Promise.reject(new Error('this method has one response: return it'));

/** One for all: a workload that wants one message of a stream cancels it after, and each stack would cost 5 us. */
const callerGone = new Fault('call/cancelled', 'the caller went away');
const unknownCaller = (): Fault => new Fault('caller/unauthenticated', 'the calling process could not be identified');

/** A call that is over before a handler could be given it: nothing can be asked of it. */
export function refusedCall(method: string, caller: Caller, fault: Fault): Call {
  return { method, caller, signal: AbortSignal.abort(fault), metadata: () => undefined };
}

function incoming(path: string, surface: Surface, hooks: CallHooks, isUnary: boolean): IncomingCall | undefined {
  // The name is read at once: later the connection may be gone, and its name with it.
  const connection = surface.getPeer();
  const caller = hooks.callerOf(connection);
  return caller === undefined ? undefined : new IncomingCall(path, caller, connection, surface, hooks, isUnary);
}

/** A class, since one is made for every call and closures for each property would cost more than the call. */
class IncomingCall implements Call {
  readonly method: string;
  readonly caller: Caller;
  readonly connection: string;
  readonly #surface: Surface;
  readonly #hooks: CallHooks;
  readonly #started: number;
  /** Of a stream, whoever serves it hears of its end and calls abort. */
  readonly #isUnary: boolean;
  #controller: AbortController | undefined;
  #stopped: Fault | undefined;
  #ended = false;

  constructor(
    method: string,
    caller: Caller,
    connection: string,
    surface: Surface,
    hooks: CallHooks,
    isUnary: boolean,
  ) {
    this.method = method;
    this.caller = caller;
    this.connection = connection;
    this.#surface = surface;
    this.#isUnary = isUnary;
    this.#hooks = hooks;
    this.#started = hooks.onDone === undefined ? 0 : hooks.clock.now();
    hooks.refused.begin(surface, this);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Made when it is asked for: most calls never do. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#stopped !== undefined) this.#controller.abort(this.#stopped);
      else if (this.#surface.cancelled) this.abort(callerGone);
      else if (this.#isUnary) (this.#surface as EventEmitter).once('cancelled', () => this.abort(callerGone));
    }
    return this.#controller.signal;
  }

  metadata(name: string): string | undefined {
    const value = this.#surface.metadata.get(name)[0];
    return typeof value === 'string' ? value : undefined;
  }

  get deadline(): number | undefined {
    const deadline = this.#surface.getDeadline();
    return deadline === Number.POSITIVE_INFINITY ? undefined : Number(deadline);
  }

  /** Ends what the handler waits for. */
  abort(reason: Fault): void {
    this.#stopped ??= reason;
    if (!this.#ended) this.#controller?.abort(reason);
  }

  /** Records the outcome, once, and gives it. A call whose caller is gone has that outcome, whatever its handler says. */
  end(error?: unknown, failed = false): Fault | undefined {
    const fault = this.#surface.cancelled ? this.#cancelled(error, failed) : failed ? asFault(error) : undefined;
    if (!this.#ended) {
      this.#ended = true;
      this.#hooks.onDone?.(this, fault, this.#hooks.clock.now() - this.#started);
    }
    return fault;
  }

  #cancelled(error: unknown, failed: boolean): Fault {
    const refused = this.#hooks.refused.of(this.#surface);
    if (refused !== undefined) return refused;
    const late = this.deadline !== undefined && this.#hooks.clock.now() >= this.deadline;
    if (!late && (!failed || error === callerGone)) return callerGone;
    const detail =
      failed && !(error instanceof Fault && error.code === 'call/cancelled') ? { detail: String(error) } : {};
    return late
      ? new Fault('call/late', 'the deadline passed', detail)
      : new Fault('call/cancelled', 'the caller went away', detail);
  }
}
