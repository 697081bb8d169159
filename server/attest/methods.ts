/** Node attestation methods of the server: one row each. A method proves what a node is and nothing more. */

import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { ServerOptions } from '../config.ts';
import type { Store } from '../store/store.ts';
import { joinToken } from './join-token.ts';
import { x509Pop } from './x509-pop.ts';

/** What an attestation proved. */
export interface Attested {
  readonly id: SpiffeId;
  readonly selectors: readonly Selector[];
  /** Whether the node can prove itself again later by the same means. */
  readonly canReattest: boolean;
  /** A join token to be consumed together with the recording of the node. */
  readonly token?: string;
}

/**
 * Checks a payload. `challenge` sends bytes to the agent and gives its response.
 * Throws a Fault that tells the agent why it was refused.
 */
export type NodeAttestor = (payload: Buffer, challenge: (bytes: Buffer) => Promise<Buffer>) => Promise<Attested>;

export interface AttestorPorts {
  readonly trustDomain: TrustDomain;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
}

/** The methods that `options` switch on, by the type that agents name. */
export async function nodeAttestors(
  options: ServerOptions,
  ports: AttestorPorts,
): Promise<ReadonlyMap<string, NodeAttestor>> {
  const methods = new Map<string, NodeAttestor>();
  if (options.nodeAttestors.joinToken.enabled) methods.set('join_token', joinToken(ports));
  if (options.nodeAttestors.x509pop) methods.set('x509pop', await x509Pop(options.nodeAttestors.x509pop, ports));
  return methods;
}
