/** Making a connection: the addresses of a server in turn, each with a bound on how long it may take to answer. */
import { connect as netConnect, type Socket } from 'node:net';
import { Fault } from '../errors.ts';
import { Connection } from './connection.ts';
import type { ConnectionPorts } from './current-connection.ts';

export interface Destination {
  /** For eyes. */
  readonly at: string;
  readonly scheme: 'http' | 'https';
  readonly authority: string;
  /** Asked each time a connection is made. */
  addresses(): Promise<readonly Address[]>;
  /** Makes a connection secure, and checks who is at its other end. The signal gives it up. */
  readonly secure?: ((socket: Socket, signal: AbortSignal) => Promise<Secured>) | undefined;
}

export type Address =
  | { readonly path: string; readonly host?: undefined }
  | { readonly host: string; readonly port: number };

export interface Secured {
  readonly socket: Socket;
  /** Until when the other end has proved who it is, Unix milliseconds. */
  readonly endsAt: number;
}

export interface Attempt {
  /** Whether the other end has accepted the connection and not answered on it: it is stuck, or has others before us. */
  readonly isWaiting: boolean;
  /** Nobody wants it any more. */
  abandon(): void;
}

export interface Outcome {
  made(connection: Connection, address: string): void;
  /** Told why none of the addresses can be used: `peer/untrusted` before whatever else there was. */
  failed(cause: unknown): void;
  /** A connection that was made takes no calls any more. */
  ended(connection: Connection): void;
}

/**
 * How long a connection may take to be made, ms: as long as clients in Go give one. A server that many come back to at once
 * takes them in turn, and whoever leaves early stands at the end of the line again.
 */
const patience = 20_000;
/** How long TCP may take of it where another address is left to try, ms. */
const tcpPatience = 5000;
/** So many addresses of a name are tried. */
const mostAddresses = 16;

/** @param last the address of the connection before this one: it comes last */
export function dial(
  destination: Destination,
  last: string | undefined,
  { clock, random }: ConnectionPorts,
  outcome: Outcome,
): Attempt {
  const abandoned = new AbortController();
  let isWaiting = false;

  async function all(): Promise<void> {
    const found = await within(patience, 'its name was not looked up', () => destination.addresses());
    const addresses = inTurn(found, random.unit(), last);
    let failure: unknown = new Error('its name has no address');
    for (const [index, address] of addresses.entries()) {
      let made: Promise<Connection> | undefined;
      try {
        const connection = await within(patience, 'no connection was made', (signal) => {
          made = one(address, index + 1 < addresses.length ? tcpPatience : patience, signal);
          return made;
        });
        outcome.made(connection, nameOf(address));
        return;
      } catch (error) {
        // Given up in the moment in which it came about.
        made?.then(
          (connection) => connection.destroy(),
          () => {},
        );
        if (abandoned.signal.aborted) return;
        if (!(failure instanceof Fault)) failure = error;
      }
    }
    outcome.failed(failure);
  }

  async function one(address: Address, tcpMs: number, signal: AbortSignal): Promise<Connection> {
    const socket = netConnect(address.host === undefined ? { path: address.path } : { ...address, noDelay: true });
    // A server that vanished is noticed by TCP: servers in Go take gRPC's own pings amiss when they come often.
    socket.setKeepAlive(true, 30_000);
    const giveUp = (): void => void socket.destroy(signal.reason);
    signal.addEventListener('abort', giveUp, { once: true });
    const cancel = clock.after(tcpMs, () => {
      if (socket.connecting) socket.destroy(new Error(`no answer from ${nameOf(address)} in ${tcpMs / 1000} seconds`));
    });
    try {
      await accepted(socket);
      isWaiting = true;
      const { secure } = destination;
      const { socket: carrier, endsAt } =
        secure === undefined ? { socket, endsAt: undefined } : await secure(socket, signal);
      return await spoken(carrier, endsAt, signal);
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      isWaiting = false;
      cancel();
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** Waits for the server's first word: it has finished the handshake some time after we have. */
  function spoken(carrier: Socket, endsAt: number | undefined, signal: AbortSignal): Promise<Connection> {
    return new Promise((resolve, reject) => {
      let cancelEnd: (() => void) | undefined;
      const giveUp = (): void => {
        connection.destroy();
        reject(signal.reason);
      };
      const connection = new Connection(
        carrier,
        () => {
          signal.removeEventListener('abort', giveUp);
          // From then on nobody knows who is at the other end.
          if (endsAt !== undefined) cancelEnd = clock.after(endsAt - clock.now(), () => connection.retire());
          resolve(connection);
        },
        (problem) => {
          cancelEnd?.();
          signal.removeEventListener('abort', giveUp);
          outcome.ended(connection);
          reject(problem ?? new Error('the connection was closed before the server said anything'));
        },
      );
      if (signal.aborted) giveUp();
      else signal.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** Does a step; aborts it when it takes too long, or when nobody waits for it any more. */
  async function within<T>(ms: number, what: string, step: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const over = new AbortController();
    const { promise: given, reject } = Promise.withResolvers<never>();
    given.catch(() => {});
    const end = (reason: unknown): void => {
      over.abort(reason);
      reject(reason);
    };
    const cancel = clock.after(ms, () => end(new Error(`${what} in ${ms / 1000} seconds`)));
    const abandon = (): void => end(abandoned.signal.reason);
    abandoned.signal.addEventListener('abort', abandon, { once: true });
    try {
      return await Promise.race([step(over.signal), given]);
    } finally {
      cancel();
      abandoned.signal.removeEventListener('abort', abandon);
    }
  }

  all().catch((error: unknown) => {
    if (!abandoned.signal.aborted) outcome.failed(error);
  });
  return {
    get isWaiting() {
      return isWaiting;
    },
    abandon: () => abandoned.abort(new Error('the connection is not wanted any more')),
  };
}

function accepted(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.once('connect', resolve);
    socket.once('close', () => reject(new Error('the connection was closed')));
  });
}

/** In the order of the answer from a random one, so that many agents do not all come to the first; `last` at the end. */
function inTurn(found: readonly Address[], unit: number, last: string | undefined): readonly Address[] {
  const first = Math.floor(unit * found.length);
  const turned = [...found.slice(first), ...found.slice(0, first)];
  const others = turned.filter((address) => nameOf(address) !== last);
  return [...others, ...turned.filter((address) => nameOf(address) === last)].slice(0, mostAddresses);
}

function nameOf(address: Address): string {
  if (address.host === undefined) return address.path;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
