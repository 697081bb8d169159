/** What callers of a listener may cost. */

/** Bytes, milliseconds and numbers. */
export interface Limits {
  /** The largest message received. */
  readonly messageBytes: number;
  /** Of all requests together that have not been answered, by all connections; more are refused. */
  readonly requestBytes: number;
  /** Streams at a time on one connection. */
  readonly streams: number;
  /** Streams a second that a connection may cancel once it has cancelled a thousand; it is closed when it cancels more. */
  readonly cancelsPerSecond: number;
  /** Connections at a time; more are closed at once. */
  readonly connections: number;
  /** How long a TLS handshake may take. */
  readonly handshakeMs: number;
  /** A silent connection is asked for a sign of life this often, and closed when none comes for a third of it. */
  readonly keepaliveMs: number;
  /** After about this long a connection without a stream is ended, so that clients look the address up again. */
  readonly connectionAgeMs: number;
  /** After about this long one with streams is ended too. */
  readonly streamAgeMs: number;
  /** A connection without any stream is closed after this long. */
  readonly idleMs: number;
}

/** Milliseconds: what ends nothing while a program runs. */
export const never: number = 2 ** 31 - 1;
export const unixLimits: Limits = {
  messageBytes: 4 << 20,
  requestBytes: 256 << 20,
  streams: 256,
  // A workload that looks at the first message of a stream and leaves does no harm, however often.
  cancelsPerSecond: 100_000,
  connections: 16_384,
  handshakeMs: never,
  keepaliveMs: never,
  connectionAgeMs: never,
  streamAgeMs: never,
  idleMs: never,
};
export const tlsLimits: Limits = {
  messageBytes: 4 << 20,
  requestBytes: 256 << 20,
  streams: 256,
  cancelsPerSecond: 33,
  connections: 65_536,
  handshakeMs: 10_000,
  keepaliveMs: 60_000,
  connectionAgeMs: 180_000,
  // An agent's SVID is renewed more often, and its connection with it; this is for those that live for days. Longer than
  // such an SVID lives unless told otherwise, so that a stream that ends with its SVID says so.
  streamAgeMs: 7_200_000,
  idleMs: 30 * 60_000,
};
/** A caller who has not proved anything needs two methods with small messages, and may cost little else. */
export const anonymousLimits: Partial<Limits> = {
  messageBytes: 1 << 20,
  requestBytes: 32 << 20,
  streams: 16,
  streamAgeMs: 180_000,
};

/** No limit of `others` that is wider than that of `limits`. */
export function smaller(limits: Limits, others: Partial<Limits>): Partial<Limits> {
  return Object.fromEntries(
    Object.entries(others).map(([name, value]) => [name, Math.min(value, limits[name as keyof Limits])]),
  );
}
