/**
 * Channels to gRPC servers. Every failure is a Fault: what the server answered keeps its status and reason; what kept us
 * from reaching it is `peer/unavailable`, or `peer/untrusted` when it was not who it should be. Nothing is retried here but
 * the connection itself, and a call that the server says it has not looked at.
 */
import { isIP } from 'node:net';
import { resolve as resolvePath } from 'node:path';
import { systemClock } from '../run/clock.ts';
import { type Random, systemRandom } from '../run/random.ts';
import { type Channel, openChannel } from './channel.ts';
import type { Address } from './dial.ts';
import { checkSocketPath } from './socket-path.ts';
import { type ExpectedServer, spiffeCredentials } from './spiffe-credentials.ts';

export type { CallOptions, Channel, Conversation } from './channel.ts';

/** Where a server is: on TCP, or on a Unix socket. */
export type TlsTarget = ExpectedServer & {
  /** Chooses among the addresses of a name, and spreads what is tried again. */
  readonly random?: Pick<Random, 'unit'>;
} & (
    | {
        readonly host: string;
        readonly port: number;
        /** The addresses of a name; without it, those that the machine knows. */
        readonly lookup?: (host: string) => Promise<readonly string[]>;
      }
    | { readonly path: string; readonly host?: undefined }
  );

/** A channel over a Unix socket. Throws `config/invalid` when the path is too long. */
export function connectUnix(path: string): Channel {
  const socket = { path: resolvePath(checkSocketPath(path)) };
  const destination = { at: path, scheme: 'http', authority: 'localhost', addresses: async () => [socket] } as const;
  return openChannel(destination, { clock: systemClock, random: systemRandom });
}

/**
 * A channel over TLS, on TCP or a Unix socket. A name is looked up for each connection, and its addresses take turns. The
 * certificate shown and the authorities trusted are asked for at each handshake, so a rotated value counts from the next
 * connection on.
 */
export function connectTls(target: TlsTarget): Channel {
  const { clock = systemClock, random = systemRandom } = target;
  const secure = spiffeCredentials(target, target.host);
  return openChannel({ ...placeOf(target), scheme: 'https', secure }, { clock, random });
}

/** What is said of a server, and where it is. */
function placeOf(target: TlsTarget): { at: string; authority: string; addresses(): Promise<readonly Address[]> } {
  if (target.host === undefined) {
    const socket = { path: resolvePath(checkSocketPath(target.path)) };
    return { at: target.path, authority: 'localhost', addresses: async () => [socket] };
  }
  const { host, port, lookup = addressesOf } = target;
  const at = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const addresses = async (): Promise<readonly Address[]> =>
    isIP(host) === 0 ? (await lookup(host)).map((address) => ({ host: address, port })) : [{ host, port }];
  return { at, authority: at, addresses };
}

async function addressesOf(host: string): Promise<readonly string[]> {
  // Loaded where there is a name at all.
  const { lookup } = await import('node:dns/promises');
  return (await lookup(host, { all: true })).map(({ address }) => address);
}
