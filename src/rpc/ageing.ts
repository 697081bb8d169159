/**
 * How old a connection gets. One is ended now and then, so that its client looks the address up again and connections
 * spread over servers that came later. A stream that stands for long would keep an ended connection open beside the new
 * one, for good: while a connection carries a stream it is left alone, up to an age at which its streams are ended too,
 * with word that they may be opened again at once.
 */
import { Fault } from '../errors.ts';
import type { Clock } from '../run/clock.ts';
import type { Random } from '../run/random.ts';

export interface AgeLimits {
  /** Milliseconds, ±10 %, after which a connection without a stream is ended. */
  readonly connectionAgeMs: number;
  /** The same for one that has carried a stream whenever it was looked at. */
  readonly streamAgeMs: number;
}

/** A connection that grows old. */
export interface Ageing {
  /** Whether a stream is open on it. */
  streaming(): boolean;
  /** Ends it: no new calls, `reason` to the streams that are open. */
  end(reason: Fault): void;
}

const servedItsTime = new Fault('peer/unavailable', 'this connection has served its time', {
  hint: 'Connect again.',
  retryAfterMs: 0,
});

/** Lets a connection grow old from now on; the function that this gives forgets it. */
export function growOld(connection: Ageing, limits: AgeLimits, clock: Clock, random: Random): () => void {
  const born = clock.now();
  // Drawn once: connections that were made together do not end together.
  const part = 0.9 + 0.2 * random.unit();
  const look = (): void => {
    const left = limits.streamAgeMs * part - (clock.now() - born);
    if (left > 0 && connection.streaming()) cancel = clock.after(Math.min(limits.connectionAgeMs * part, left), look);
    else connection.end(servedItsTime);
  };
  let cancel = clock.after(limits.connectionAgeMs * part, look);
  return () => cancel();
}
