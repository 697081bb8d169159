/**
 * The one connection that a channel has: made when the first call needs it, made anew when it is gone. Calls wait while it
 * is being made; while the server is known not to answer they fail at once, and it is tried again after pauses that grow.
 */
import { Fault, quote } from '../errors.ts';
import { type Backoff, backoffDelay } from '../run/backoff.ts';
import type { Clock } from '../run/clock.ts';
import type { Random } from '../run/random.ts';
import type { Connection } from './connection.ts';
import { type Attempt, type Destination, dial } from './dial.ts';

/** A call that has no connection yet: told of one, or why there is none. */
export interface Waiting {
  connected(connection: Connection): void;
  failed(fault: Fault): void;
}

export interface ConnectionPorts {
  readonly clock: Clock;
  readonly random: Pick<Random, 'unit'>;
}

const backoff: Backoff = { first: 250, most: 5000, factor: 1.6 };

export class CurrentConnection {
  readonly #destination: Destination;
  readonly #ports: ConnectionPorts;
  #connection: Connection | undefined;
  #attempt: Attempt | undefined;
  readonly #waiting = new Set<Waiting>();
  /** Why the last attempt failed; undefined after one that did not. */
  #failure: Fault | undefined;
  #failures = 0;
  #cancelPause: (() => void) | undefined;
  /** Whether a call was failed since the last attempt began: then the next one is made without waiting for another. */
  #isWanted = false;
  /** Where the last connection was, so that the next one is somewhere else, if there is such a place. */
  #last: string | undefined;
  #isClosed = false;

  constructor(destination: Destination, ports: ConnectionPorts) {
    this.#destination = destination;
    this.#ports = ports;
  }

  get scheme(): string {
    return this.#destination.scheme;
  }

  get authority(): string {
    return this.#destination.authority;
  }

  /** See `Channel.isWaiting`. */
  get isWaiting(): boolean {
    return this.#attempt?.isWaiting === true;
  }

  /** The connection there is; without one undefined, and the call is told later. Throws why there will be none now. */
  take(call: Waiting): Connection | undefined {
    this.requireOpen();
    if (this.#connection?.isOpen === true) return this.#connection;
    if (this.#failure !== undefined && (this.#attempt !== undefined || this.#cancelPause !== undefined)) {
      this.#isWanted = true;
      throw this.#failure;
    }
    this.#waiting.add(call);
    if (this.#attempt === undefined) this.#dial();
    return undefined;
  }

  /** A call that waited is over. */
  leave(call: Waiting): void {
    this.#waiting.delete(call);
  }

  /** Throws when the channel was closed. */
  requireOpen(): void {
    if (this.#isClosed) throw new Fault('peer/unavailable', `the channel to ${quote(this.#destination.at)} is closed`);
  }

  /** What keeps us from the server, or broke the connection to it, as a Fault. */
  unreached(cause: unknown): Fault {
    if (cause instanceof Fault) return cause;
    return new Fault('peer/unavailable', `cannot reach ${quote(this.#destination.at)}: ${wordsOf(cause)}`, {
      hint: 'Check that it runs and that this is its address.',
      cause,
    });
  }

  /** The calls that follow take a new connection. Those under way go on; those that wait for one fail. */
  reconnect(): void {
    if (!this.#isClosed) this.#drop(new Error('another connection was wanted while this one was made'));
  }

  /** Calls under way go on; there are no more. */
  close(): void {
    this.#isClosed = true;
    this.#drop(new Error('the channel was closed before there was a connection'));
  }

  #drop(why: Error): void {
    this.#attempt?.abandon();
    this.#attempt = undefined;
    this.#cancelPause?.();
    this.#cancelPause = undefined;
    this.#failure = undefined;
    this.#failures = 0;
    this.#connection?.retire();
    this.#connection = undefined;
    this.#fail(this.unreached(why));
  }

  #fail(fault: Fault): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const call of waiting) call.failed(fault);
  }

  #dial(): void {
    this.#isWanted = false;
    const attempt = dial(this.#destination, this.#last, this.#ports, {
      made: (connection, address) => {
        if (this.#attempt !== attempt) {
          connection.destroy();
          return;
        }
        this.#attempt = undefined;
        this.#failure = undefined;
        this.#failures = 0;
        this.#last = address;
        this.#connection = connection;
        const waiting = [...this.#waiting];
        this.#waiting.clear();
        for (const call of waiting) call.connected(connection);
      },
      failed: (cause) => {
        if (this.#attempt !== attempt) return;
        this.#attempt = undefined;
        this.#pause(this.unreached(cause));
      },
      ended: (connection) => {
        if (this.#connection === connection) this.#connection = undefined;
      },
    });
    this.#attempt = attempt;
  }

  #pause(failure: Fault): void {
    this.#failure = failure;
    this.#failures += 1;
    const { clock, random } = this.#ports;
    this.#cancelPause = clock.after(backoffDelay(backoff, this.#failures, random.unit()), () => {
      this.#cancelPause = undefined;
      if (this.#isWanted) this.#dial();
    });
    this.#fail(failure);
  }
}

/** What an error says; of OpenSSL's, which name their own source file too, the reason. */
function wordsOf(cause: unknown): string {
  if (cause === undefined) return 'the connection was closed';
  if (!(cause instanceof Error)) return String(cause);
  const { reason } = cause as { reason?: unknown };
  return typeof reason === 'string' ? `TLS: ${reason}` : cause.message;
}
