/**
 * `k8s`: the pod and the container of a process, as kubelet knows them, or the API server where the agent is told to ask
 * that one. A container that is not listed yet is waited for, poll by poll. Labels of a pod may change, so what was found
 * counts for `reloadInterval`.
 */
import { Fault } from '../../src/errors.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import { type CgroupFiles, type Container, locate } from './cgroup.ts';
import type { WorkloadMethod } from './methods.ts';
import { type NodePodsOptions, nodePods } from './node-pods.ts';
import { findPod } from './pod-path.ts';
import type { Pods } from './pods.ts';

export interface K8sOptions extends NodePodsOptions {
  readonly maxPollAttempts: number;
  readonly disableContainerSelectors: boolean;
}

/** Milliseconds for the lists themselves, beside the waiting between them. */
const answers = 10_000;
/** Milliseconds for which the API server's list counts for containers that are in it: it has many nodes to answer. */
const apiServerAge = 5_000;

export function k8sMethod(options: K8sOptions, clock: Clock, cgroups: CgroupFiles): WorkloadMethod {
  const { maxPollAttempts, pollRetryInterval, reloadInterval, useApiServer } = options;
  const node = nodePods(options, clock);
  return {
    name: 'k8s',
    deadline: maxPollAttempts * pollRetryInterval + answers,
    fingerprint(pid) {
      const text = cgroups.of(pid);
      const isPod = locate(text, cgroups.own, findPod) !== undefined;
      return isPod ? `${text}|${Math.floor(clock.now() / reloadInterval)}` : text;
    },
    attest: async (pid, signal) => (await lookUp(pid, signal, options.disableContainerSelectors))?.selectors ?? [],
    async image(pid, signal) {
      const found = await lookUp(pid, signal, false);
      return found && { type: 'k8s', digests: found.digests };
    },
  };

  /** What kubelet says of a process's container; undefined for one in none. */
  async function lookUp(pid: number, signal: AbortSignal, isPodAlone: boolean): Promise<Found | undefined> {
    const text = cgroups.of(pid);
    const container = locate(text, cgroups.own, findPod);
    if (container === undefined) return undefined;
    for (let attempt = 1; ; attempt++) {
      const age = useApiServer && attempt === 1 ? apiServerAge : undefined;
      const found = foundIn(container, await node.pods(signal, age), isPodAlone, node.name);
      if (found !== undefined) return found;
      if (attempt >= maxPollAttempts) throw unlisted(container, attempt, node.name);
      await sleep(clock, pollRetryInterval, signal);
      // A process that ended while it was waited for is not waited for any longer.
      if (cgroups.of(pid) !== text) throw new Fault('state/refused', 'a process went to another cgroup meanwhile');
    }
  }
}

interface Found {
  readonly selectors: readonly Selector[];
  readonly digests: readonly string[];
}

/** Undefined when the container is not listed, or not yet. */
function foundIn(container: Container, pods: Pods, isPodAlone: boolean, by: string): Found | undefined {
  const { id, podUid } = container;
  const found = pods.containers.get(id);
  if (found === undefined) {
    const pod = isPodAlone && podUid !== undefined ? pods.byUid.get(podUid) : undefined;
    return pod && { selectors: pod.selectors, digests: [] };
  }
  // A static pod has another uid at the API server, which says there what kubelet calls it.
  if (podUid !== undefined && found.pod.uid !== podUid && found.pod.mirrorOf !== podUid) {
    throw new Fault('caller/denied', 'a process is in the cgroup of one pod and in a container of another', {
      detail: `container ${id}: the cgroup is of pod ${podUid}, ${by} says ${found.pod.uid}`,
    });
  }
  const { pod, selectors, digests } = found;
  return { selectors: isPodAlone ? pod.selectors : [...pod.selectors, ...selectors], digests };
}

const unlisted = ({ id, podUid }: Container, attempts: number, by: string): Fault =>
  new Fault('thing/missing', `${by} does not list the container of a process, asked ${attempts} times`, {
    detail: `container ${id}${podUid === undefined ? '' : ` of pod ${podUid}`}`,
  });
