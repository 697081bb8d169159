/** The options of the SPIFFE Broker API: a section that is there when the agent is to serve it. */
import { optional, optionalSection, type Rule, reloadable, setting } from '../config.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { choice, count, fileMode, type HostPort, hostPort, listOf, socketPath, spiffeId, text } from './kinds.ts';

const brokers = (means: string) => setting(listOf(spiffeId), [], means);

export const brokerSection = optionalSection(
  'The SPIFFE Broker API, by which brokers get the identities of workloads for which they act. Off until it is given.',
  {
    socket: optional(socketPath, 'The Unix socket on which brokers of this node are served, over mutual TLS.'),
    socketMode: setting(fileMode, 0o600, 'Who may open that socket, as an octal file mode.'),
    listen: optional(hostPort(0), 'The address on which brokers are served over the network, over mutual TLS.'),
    profiles: setting(listOf(choice('x509', 'jwt')), ['x509', 'jwt'], 'What is handed out.'),
    ...reloadable({
      processes: brokers(
        'The brokers, by SPIFFE ID, that may refer to any process of this node by its pid. Over the socket alone.',
      ),
      pods: brokers('The brokers that may refer to pods of this node over the socket.'),
      podsOverNetwork: brokers('The brokers that may refer to pods of this node over the network.'),
      podNamespaces: setting(listOf(text), [], 'The namespaces whose pods may be referred to; without one, all.'),
      callsPerBroker: setting(count(1, 1_000_000), 4_096, 'Calls and streams that one broker may have open at a time.'),
      callsPerSecond: setting(count(1, 1_000_000), 1_000, 'Calls and streams that one broker may begin in a second.'),
    }),
  },
);

interface WithBroker {
  readonly broker?: {
    readonly socket?: string;
    readonly listen?: HostPort;
    readonly processes: readonly SpiffeId[];
    readonly pods: readonly SpiffeId[];
    readonly podsOverNetwork: readonly SpiffeId[];
  };
  readonly workloadAttestors: { readonly k8s?: object };
}

/** Nobody listens in vain, nobody is given a right that nothing can come of. */
export const brokerRules: readonly Rule<WithBroker>[] = [
  {
    needs: ['broker.socket', 'broker.listen', 'broker.processes', 'broker.pods', 'broker.podsOverNetwork'],
    check({ broker, workloadAttestors: { k8s } }, report) {
      if (broker === undefined) return;
      const { socket, listen, processes, pods, podsOverNetwork } = broker;
      const local = processes.length + pods.length;
      if (socket === undefined && listen === undefined)
        report.fault('broker.socket', 'is needed, or broker.listen: brokers have to be served somewhere');
      if (socket !== undefined && local === 0)
        report.fault('broker.processes', 'is empty, and so is broker.pods: name a broker, or leave broker.socket out');
      if (socket === undefined && local > 0)
        report.fault(
          `broker.${processes.length > 0 ? 'processes' : 'pods'}`,
          'is for brokers over broker.socket: give it',
        );
      if (listen !== undefined && podsOverNetwork.length === 0)
        report.fault('broker.podsOverNetwork', 'is empty: name a broker, or leave broker.listen out');
      if (listen === undefined && podsOverNetwork.length > 0)
        report.fault('broker.podsOverNetwork', 'is for brokers over broker.listen: give it');
      if (k8s === undefined && pods.length + podsOverNetwork.length > 0) {
        report.fault(
          `broker.${pods.length > 0 ? 'pods' : 'podsOverNetwork'}`,
          'needs workloadAttestors.k8s: kubelet is asked about pods as it says',
        );
      }
    },
  },
];
