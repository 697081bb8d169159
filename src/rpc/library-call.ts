/** Calls that grpc-js carries: streams both ways, and whatever of the others is not plain (direct-call.ts). */
import type {
  MethodDefinition,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedHandleCall,
} from '@grpc/grpc-js';
import type { Fault } from '../errors.ts';
import { type Carrier, callerGone, type Serve } from './call.ts';
import type { Encoded } from './encoded.ts';
import { messagesOf } from './messages.ts';
import type { RefusedMessages } from './refused-messages.ts';
import { serviceError } from './service-error.ts';

type OutgoingStream = ServerWritableStream<object, Buffer> | ServerDuplexStream<object, Buffer>;
type Surface = ServerUnaryCall<object, Buffer> | OutgoingStream;

/** Makes what grpc-js wants of a handler. The responses' serialiser has to be `takeBytes`. */
export function adapt(
  method: MethodDefinition<object, object>,
  serve: Serve,
  refused: RefusedMessages,
): UntypedHandleCall {
  const take = method.responseStream
    ? (surface: OutgoingStream) =>
        serve(new StreamCarrier(surface, refused), 'request' in surface ? surface.request : requestsOf(surface))
    : (surface: ServerUnaryCall<object, Buffer>, answer: sendUnaryData<Buffer>) =>
        serve(new UnaryCarrier(surface, refused, answer), surface.request);
  return take as UntypedHandleCall;
}

/** The serialiser for messages that are encoded already, so that one that cannot be encoded is a fault. */
export const takeBytes = (bytes: Buffer): Buffer => bytes;

abstract class LibraryCarrier<T extends Surface> implements Carrier {
  readonly connection: string;
  protected readonly surface: T;
  readonly #refused: RefusedMessages;
  #isEnded = false;

  constructor(surface: T, refused: RefusedMessages) {
    this.surface = surface;
    // The name is read at once: later the connection may be gone, and its name with it.
    this.connection = surface.getPeer();
    this.#refused = refused;
    refused.begin(surface, this);
  }

  /** Statuses are ours from here on. */
  get ended(): boolean {
    return this.#isEnded;
  }

  get isOver(): boolean {
    return this.surface.cancelled;
  }

  get refusal(): Fault | undefined {
    return this.#refused.of(this.surface);
  }

  get deadline(): number | undefined {
    const deadline = this.surface.getDeadline();
    return deadline === Number.POSITIVE_INFINITY ? undefined : Number(deadline);
  }

  header(name: string): string | undefined {
    const value = this.surface.metadata.get(name)[0];
    return typeof value === 'string' ? value : undefined;
  }

  onOver(told: () => void): void {
    (this.surface as NodeJS.EventEmitter).once('cancelled', told);
  }

  finish(): void {
    this.#isEnded = true;
    this.end(undefined);
  }

  fail(fault: Fault): void {
    this.#isEnded = true;
    this.end(fault);
  }

  abstract send(message: Encoded, done: (isLost: boolean) => void): void;
  protected abstract end(fault: Fault | undefined): void;
}

class UnaryCarrier extends LibraryCarrier<ServerUnaryCall<object, Buffer>> {
  readonly #answer: sendUnaryData<Buffer>;
  #message: Encoded | undefined;

  constructor(surface: ServerUnaryCall<object, Buffer>, refused: RefusedMessages, answer: sendUnaryData<Buffer>) {
    super(surface, refused);
    this.#answer = answer;
  }

  send(message: Encoded): void {
    this.#message = message;
  }

  protected end(fault: Fault | undefined): void {
    if (fault === undefined) this.#answer(null, this.#message?.bytes);
    else this.#answer(serviceError(fault));
  }
}

class StreamCarrier extends LibraryCarrier<OutgoingStream> {
  override get isOver(): boolean {
    return this.surface.cancelled || this.surface.destroyed;
  }

  send(message: Encoded, done: (isLost: boolean) => void): void {
    if (this.surface.writableEnded) done(true);
    else this.surface.write(message.bytes, (error: Error | null | undefined) => done(Boolean(error)));
  }

  protected end(fault: Fault | undefined): void {
    if (fault === undefined) this.surface.end();
    else this.surface.emit('error', serviceError(fault));
  }
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
