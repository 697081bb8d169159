/**
 * Callers who have proved nothing yet: nodes that come to be attested, and anybody else who can reach the port. What they
 * may hold at a time is bounded for each address and for all of them, and by time, so that nobody who opens much and says
 * nothing keeps an honest node from its first SVID, or agents from their server.
 */
import { Fault } from '../errors.ts';
import type { Clock } from '../run/clock.ts';

export interface StrangerLimits {
  /** Connections at a time from one address; the oldest makes room for the next. */
  readonly connectionsOfAddress: number;
  /** The same of all addresses together. */
  readonly connections: number;
  /** Calls at a time from one address; more are refused. */
  readonly callsOfAddress: number;
  /** Milliseconds in which the request of a plain call has to come. */
  readonly requestMs: number;
  /** Milliseconds after which any call is broken off: longer than an attestation may wait and take. */
  readonly callMs: number;
}

/** Half of all connections stay for those who are known. */
export const strangerLimits = (connections: number): StrangerLimits => ({
  connectionsOfAddress: 512,
  connections: Math.ceil(connections / 2),
  callsOfAddress: 512,
  requestMs: 10_000,
  callMs: 120_000,
});

const retryAfterMs = 5_000;
const crowded = (what: string): Fault =>
  new Fault('limit/exceeded', `too many ${what} from this address without an SVID`, {
    hint: 'Try again later.',
    retryAfterMs,
  });
/** Told to the streams of a connection that makes room for another one. */
const madeRoom = crowded('connections');

export interface Strangers {
  /** Counts a connection. `end` is called, with what its streams are told, when it has to make room. Gives its end. */
  connected(address: string, end: (reason: Fault) => void): () => void;
  /**
   * Counts a call. `breakOff` is called when it has lasted for too long. Gives its end, or undefined when the address
   * has too many, which `refusal` says.
   */
  called(address: string, breakOff: () => void): (() => void) | undefined;
  readonly refusal: Fault;
}

interface Connection {
  readonly party: string;
  end(reason: Fault): void;
}

export function strangers(limits: StrangerLimits, clock: Clock): Strangers {
  /** Oldest first. */
  const all = new Set<Connection>();
  const byParty = new Map<string, Set<Connection>>();
  const calls = new Map<string, number>();

  const forget = (connection: Connection): void => {
    all.delete(connection);
    const others = byParty.get(connection.party);
    others?.delete(connection);
    if (others?.size === 0) byParty.delete(connection.party);
  };
  const makeRoom = (among: ReadonlySet<Connection>, most: number): void => {
    const [oldest] = among;
    if (oldest === undefined || among.size <= most) return;
    forget(oldest);
    oldest.end(madeRoom);
  };

  return {
    connected(address, end) {
      const connection = { party: partyOf(address), end };
      const others = byParty.get(connection.party) ?? new Set();
      byParty.set(connection.party, others.add(connection));
      all.add(connection);
      makeRoom(others, limits.connectionsOfAddress);
      makeRoom(all, limits.connections);
      return () => forget(connection);
    },
    called(address, breakOff) {
      const party = partyOf(address);
      const others = calls.get(party) ?? 0;
      if (others >= limits.callsOfAddress) return undefined;
      calls.set(party, others + 1);
      const cancel = clock.after(limits.callMs, breakOff);
      let isOver = false;
      return () => {
        if (isOver) return;
        isOver = true;
        cancel();
        const left = (calls.get(party) as number) - 1;
        if (left === 0) calls.delete(party);
        else calls.set(party, left);
      };
    },
    refusal: crowded('calls at a time'),
  };
}

/** Whom an address stands for: of IPv6 everybody is given 2^64 of them, so that only the first half counts. */
export function partyOf(address: string): string {
  const [plain = ''] = address.split('%');
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const behind = tail === '' ? [] : tail.split(':');
    while (groups.length + behind.length < 8) groups.push('0');
    groups.push(...behind);
  }
  return `${groups.slice(0, 4).join(':')}::/64`;
}
