/**
 * One incoming call: who makes it, what a handler sees of it, and how its outcome goes back. A handler is a plain
 * function over messages; nothing of what carries them reaches it.
 */
import type { MethodDefinition } from '@grpc/grpc-js';
import { asFault, Fault } from '../errors.ts';
import type { Clock } from '../run/clock.ts';
import type { Caller } from './caller.ts';
import { Encoded } from './encoded.ts';

export interface Call {
  /** The full name, such as `/spire.api.server.agent.v1.Agent/ListAgents`. */
  readonly method: string;
  readonly caller: Caller;
  /** Aborted when the caller goes away, its deadline passes, or the server closes; never after the answer was given. */
  readonly signal: AbortSignal;
  /** Why the call was broken off, as the signal's reason; undefined while it was not. */
  readonly broken: Fault | undefined;
  /** As listening to the signal, for a tenth of what one costs: `told` is called once, unless forgotten before. */
  onBroken(told: () => void): () => void;
  /** A header's first value; undefined when it is absent. */
  metadata(name: string): string | undefined;
  /** Unix milliseconds. */
  readonly deadline?: number | undefined;
  /** What the guard has found out about it, for the handlers. */
  found?: unknown;
}

/** Sends one message of a stream. Resolves when the transport has taken it; rejects when the caller is gone. Await it. */
export type Send = (message: object) => Promise<void>;

/**
 * Unary: `(request, call) => response`. Server stream: `(request, call, send) => end`. Both ways:
 * `(requests: AsyncIterable, call, send) => end`. Which it is follows from the contract. May return promises.
 */
// biome-ignore lint/suspicious/noExplicitAny: each handler names the generated type of its message.
export type Handler = (input: any, call: Call, send: Send) => unknown;

export interface CallHooks {
  readonly clock: Clock;
  /** The caller of the connection with this name. */
  callerOf(connection: string): Caller | undefined;
  /** Runs before each handler; what it throws is the answer. */
  readonly guard?: ((call: Call) => unknown) | undefined;
  /** Told once a call, when its outcome is known: undefined when it worked. */
  readonly onDone?: ((call: Call, fault: Fault | undefined, ms: number) => void) | undefined;
  /** Told of a stream that was opened on the connection with this name, and how it is ended; and of its end. */
  opened(connection: string, end: (reason: Fault) => void): void;
  over(connection: string, end: (reason: Fault) => void): void;
  /** Why a stream cannot be opened any more, once the server is closing. */
  closing(): Fault | undefined;
}

/** What brings a call and takes its outcome back: HTTP/2 itself (direct-call.ts) or grpc-js's objects (library-call.ts). */
export interface Carrier {
  /** The name of the connection. */
  readonly connection: string;
  /** Whether nothing can be sent any more: the caller went away, or the carrier ended the call. */
  readonly isOver: boolean;
  /** Why the carrier ended the call, if it did. */
  readonly refusal: Fault | undefined;
  /** Unix milliseconds. */
  readonly deadline: number | undefined;
  /** A header's first value. */
  header(name: string): string | undefined;
  /** `told` is called once if the call is over before it was finished or failed. */
  onOver(told: () => void): void;
  /** Sends a message. `done` is called when the transport has taken it, or cannot. */
  send(message: Encoded, done: (isLost: boolean) => void): void;
  /** Ends the call after what was sent. */
  finish(): void;
  fail(fault: Fault): void;
}

/** Takes a call whose request is there: one message, or the messages of a stream. */
export type Serve = (carrier: Carrier, input: object) => void;

/** Makes of a handler what carriers want. */
export function serve(method: MethodDefinition<object, object>, handler: Handler, hooks: CallHooks): Serve {
  const encode = (message: unknown): Encoded =>
    message instanceof Encoded ? message : new Encoded(method.responseSerialize((message ?? {}) as object));
  if (method.responseStream) return stream(method.path, handler, encode, hooks);
  if (method.requestStream)
    throw new Error(`${method.path}: client streams without a response stream are not supported`);
  return unary(method.path, handler, encode, hooks);
}

type Encode = (message: unknown) => Encoded;

function unary(path: string, handler: Handler, encode: Encode, hooks: CallHooks): Serve {
  const failed = (call: IncomingCall, error: unknown): void => call.carrier.fail(call.end(error, true) as Fault);
  const worked = (call: IncomingCall, response: unknown): void => {
    let message: Encoded;
    try {
      message = encode(response);
    } catch (error) {
      failed(call, error);
      return;
    }
    call.end();
    call.carrier.send(message, nothing);
    call.carrier.finish();
  };
  return (carrier, request) => {
    const call = incoming(path, carrier, hooks);
    if (call === undefined) return;
    carrier.onOver(() => call.abort(callerGone));
    try {
      const gate = hooks.guard?.(call);
      const result =
        gate instanceof Promise ? gate.then(() => handler(request, call, noStream)) : handler(request, call, noStream);
      if (result instanceof Promise)
        result.then(
          (response) => worked(call, response),
          (error: unknown) => failed(call, error),
        );
      else worked(call, result);
    } catch (error) {
      failed(call, error);
    }
  };
}

function stream(path: string, handler: Handler, encode: Encode, hooks: CallHooks): Serve {
  return (carrier, input) => {
    const call = incoming(path, carrier, hooks);
    if (call === undefined) return;
    const { send, stop } = sender(carrier, encode);
    let isSettled = false;
    const settle = (error?: unknown, failed = false): void => {
      if (isSettled) return;
      isSettled = true;
      const fault = call.end(error, failed);
      if (!carrier.isOver) {
        if (fault === undefined) carrier.finish();
        else carrier.fail(fault);
      }
      hooks.over(carrier.connection, end);
    };
    const end = (reason: Fault): void => {
      call.abort(reason);
      stop(reason);
      settle(reason, true);
    };
    hooks.opened(carrier.connection, end);
    carrier.onOver(() => end(callerGone));
    const closing = hooks.closing();
    if (closing !== undefined) return end(closing);
    const failed = (error: unknown): void => settle(error, true);
    try {
      const gate = hooks.guard?.(call);
      const work = gate instanceof Promise ? gate.then(() => handler(input, call, send)) : handler(input, call, send);
      if (work instanceof Promise) work.then(() => settle(), failed);
      else settle();
    } catch (error) {
      failed(error);
    }
  };
}

/** A send is done when the transport has taken the message, so that a caller who does not read costs one message. */
function sender(carrier: Carrier, encode: Encode): { send: Send; stop(reason: Fault): void } {
  const underWay = new Set<(reason: Fault) => void>();
  const send: Send = (message) => {
    const sent = new Promise<void>((resolve, reject) => {
      const bytes = encode(message);
      if (carrier.isOver) return reject(callerGone);
      underWay.add(reject);
      carrier.send(bytes, (isLost) => {
        underWay.delete(reject);
        if (isLost) reject(callerGone);
        else resolve();
      });
    });
    // A handler which does not await its last message must not bring the program down when the caller is gone.
    sent.catch(nothing);
    return sent;
  };
  const stop = (reason: Fault): void => {
    for (const reject of underWay) reject(reason);
    underWay.clear();
  };
  return { send, stop };
}

const nothing = (): void => {};
const noStream: Send = () => Promise.reject(new Error('this method has one response: return it'));

/** One for all: a workload that wants one message of a stream cancels it after, and each stack would cost 5 us. */
export const callerGone = new Fault('call/cancelled', 'the caller went away');
const unknownCaller = (): Fault => new Fault('caller/unauthenticated', 'the calling process could not be identified');

/** A call that is over before a handler could be given it: nothing can be asked of it. */
export function refusedCall(method: string, caller: Caller, fault: Fault): Call {
  return {
    method,
    caller,
    signal: AbortSignal.abort(fault),
    broken: fault,
    onBroken: () => nothing,
    metadata: () => undefined,
  };
}

/** Undefined, and answered, when nobody is known to be at the other end. */
function incoming(path: string, carrier: Carrier, hooks: CallHooks): IncomingCall | undefined {
  const caller = hooks.callerOf(carrier.connection);
  if (caller !== undefined) return new IncomingCall(path, caller, carrier, hooks);
  carrier.fail(unknownCaller());
  return undefined;
}

/** A class, since one is made for every call and closures for each property would cost more than the call. */
class IncomingCall implements Call {
  readonly method: string;
  readonly caller: Caller;
  readonly carrier: Carrier;
  found: unknown;
  readonly #hooks: CallHooks;
  readonly #started: number;
  #controller: AbortController | undefined;
  #told: Set<() => void> | undefined;
  #broken: Fault | undefined;
  #ended = false;

  constructor(method: string, caller: Caller, carrier: Carrier, hooks: CallHooks) {
    this.method = method;
    this.caller = caller;
    this.carrier = carrier;
    this.#hooks = hooks;
    this.#started = hooks.onDone === undefined ? 0 : hooks.clock.now();
  }

  get broken(): Fault | undefined {
    return this.#broken;
  }

  /** Made when it is asked for: most calls never do. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#broken !== undefined) this.#controller.abort(this.#broken);
    }
    return this.#controller.signal;
  }

  onBroken(told: () => void): () => void {
    this.#told ??= new Set();
    this.#told.add(told);
    return () => this.#told?.delete(told);
  }

  metadata(name: string): string | undefined {
    return this.carrier.header(name);
  }

  get deadline(): number | undefined {
    return this.carrier.deadline;
  }

  /** Ends what the handler waits for. */
  abort(reason: Fault): void {
    if (this.#ended || this.#broken !== undefined) return;
    this.#broken = reason;
    for (const told of this.#told ?? []) told();
    this.#told = undefined;
    this.#controller?.abort(reason);
  }

  /** Records the outcome, once, and gives it. A call whose caller is gone has that outcome, whatever its handler says. */
  end(error?: unknown, failed = false): Fault | undefined {
    const fault = this.carrier.isOver ? this.#cancelled(error, failed) : failed ? asFault(error) : undefined;
    if (!this.#ended) {
      this.#ended = true;
      this.#hooks.onDone?.(this, fault, this.#hooks.clock.now() - this.#started);
    }
    return fault;
  }

  #cancelled(error: unknown, failed: boolean): Fault {
    const { refusal } = this.carrier;
    if (refusal !== undefined) return refusal;
    const late = this.deadline !== undefined && this.#hooks.clock.now() >= this.deadline;
    if (!late && (!failed || error === callerGone)) return callerGone;
    const detail =
      failed && !(error instanceof Fault && error.code === 'call/cancelled') ? { detail: String(error) } : {};
    return late
      ? new Fault('call/late', 'the deadline passed', detail)
      : new Fault('call/cancelled', 'the caller went away', detail);
  }
}
