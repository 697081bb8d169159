/** One connection to the agent's server: who it must be, what it is verified by, and as whom the agent comes. */
import { createPrivateKey } from 'node:crypto';
import { connectTls } from '../src/rpc/connect.ts';
import type { Clock } from '../src/run/clock.ts';
import { serverId } from '../src/spiffe/id.ts';
import type { CheckRevocation } from '../src/spiffe/revocation.ts';
import type { AgentOptions } from './config.ts';
import type { OpenApi } from './link.ts';
import { serverApi } from './server-api.ts';
import type { NodeRecord } from './state.ts';

/**
 * Opens a connection; it is made when the first call needs it.
 * @param roots DER authorities, asked at each handshake; undefined believes any server that has the right ID
 * @param node the SVID to show; undefined shows none
 * @param revocation refuses a server whose SVID was revoked
 */
export function connectServer(
  options: Pick<AgentOptions, 'server' | 'trustDomain' | 'tls'>,
  clock: Clock,
  roots: () => readonly Buffer[] | undefined,
  node?: NodeRecord,
  revocation?: CheckRevocation,
): OpenApi {
  const svid =
    node === undefined
      ? undefined
      : { chain: node.chain, key: createPrivateKey({ key: node.pkcs8, format: 'der', type: 'pkcs8' }) };
  const { host, port } = options.server;
  const { trustDomain } = options;
  const channel = connectTls({
    host,
    port,
    trustDomain,
    expect: serverId(trustDomain),
    clock,
    requirePostQuantum: options.tls.requirePostQuantum,
    insecure: roots() === undefined,
    bundle: () => roots() ?? [],
    svid: svid && (() => svid),
    revocation,
  });
  return {
    ...serverApi(channel),
    get isWaiting() {
      return channel.isWaiting;
    },
    reconnect: () => channel.reconnect(),
    close: () => channel.close(),
  };
}

/** Runs one piece of work on a connection of its own. */
export async function once<T>(api: OpenApi, work: (api: OpenApi) => Promise<T>): Promise<T> {
  try {
    return await work(api);
  } finally {
    api.close();
  }
}
