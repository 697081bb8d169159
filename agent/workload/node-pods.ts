/** The pods of this node, from kubelet or, where the agent is told so, from the API server. */
import type { Clock } from '../../src/run/clock.ts';
import { type ApiServerOptions, apiServer } from './api-server.ts';
import { type KubeletOptions, kubelet } from './kubelet.ts';
import { type PodList, podList } from './pod-list.ts';

export interface NodePodsOptions extends KubeletOptions, ApiServerOptions {
  readonly useApiServer: boolean;
}

export function nodePods(options: NodePodsOptions, clock: Clock): PodList {
  const source = options.useApiServer ? apiServer(options, clock) : kubelet(options, clock);
  return podList(source, options.pollRetryInterval / 2, clock);
}
