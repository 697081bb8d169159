/**
 * Who is a broker, and what each may refer to: by SPIFFE ID, from the configuration alone (SPIFFE Broker Endpoint §5). Who is
 * not named may do nothing.
 */
import { Fault, quote } from '../../src/errors.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { type Reference, referenceText } from './reference.ts';

/** From where a call comes: over the Unix socket, so from this node, or over the network. */
export type Place = 'socket' | 'network';

export interface RightsOptions {
  readonly processes: readonly SpiffeId[];
  readonly pods: readonly SpiffeId[];
  readonly podsOverNetwork: readonly SpiffeId[];
  /** Empty: all. */
  readonly podNamespaces: readonly string[];
}

export interface Rights {
  isBroker(id: SpiffeId, from: Place): boolean;
  /** Throws `caller/denied` for who may refer to nothing from there. */
  requireBroker(id: SpiffeId, from: Place): void;
  /** Throws `caller/denied`. Asked before anybody looks whether the workload exists. */
  requireReference(id: SpiffeId, reference: Reference, from: Place): void;
  /** The namespace of a pod is known when it is found. Throws `caller/denied`. */
  requireNamespace(namespace: string): void;
}

/** @param options read at each use: they may change */
export function brokerRights(options: RightsOptions): Rights {
  // A number of a process means something on this node alone: none comes over the network (Broker API §3.1.2).
  const given: Readonly<Record<Place, Readonly<Record<Reference['kind'], () => readonly SpiffeId[]>>>> = {
    socket: { process: () => options.processes, pod: () => options.pods },
    network: { process: () => [], pod: () => options.podsOverNetwork },
  };
  const may = (id: SpiffeId, kind: Reference['kind'], from: Place): boolean => given[from][kind]().includes(id);
  const isBroker = (id: SpiffeId, from: Place): boolean => may(id, 'process', from) || may(id, 'pod', from);
  return {
    isBroker,
    requireBroker(id, from) {
      if (isBroker(id, from)) return;
      throw new Fault('caller/denied', `${quote(id)} is not a broker of this agent over the ${from}`, {
        hint: `The operator names brokers in ${Object.values(givenBy[from]).join(' or ')} of the agent.`,
      });
    },
    requireReference(id, reference, from) {
      if (may(id, reference.kind, from)) return;
      const option = givenBy[from][reference.kind];
      throw new Fault('caller/denied', `${quote(id)} may not refer to ${referenceText(reference)} over the ${from}`, {
        hint:
          option === undefined
            ? 'Processes are referred to over the Unix socket of their own node.'
            : `The operator gives that right in ${option} of the agent.`,
      });
    },
    requireNamespace(namespace) {
      const { podNamespaces } = options;
      if (podNamespaces.length === 0 || podNamespaces.includes(namespace)) return;
      throw new Fault('caller/denied', `pods of namespace ${quote(namespace)} may not be referred to`, {
        hint: 'The operator names namespaces in broker.podNamespaces of the agent.',
      });
    },
  };
}

/** Which option gives which right. */
const givenBy: Readonly<Record<Place, Readonly<Partial<Record<Reference['kind'], string>>>>> = {
  socket: { process: 'broker.processes', pod: 'broker.pods' },
  network: { pod: 'broker.podsOverNetwork' },
};
