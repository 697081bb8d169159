/** How the agent learns what a process is: one row a method. */
import type { Clock } from '../../src/run/clock.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { AgentOptions } from '../config.ts';
import { type CgroupFiles, cgroupFiles } from './cgroup.ts';
import { dockerMethod } from './docker.ts';
import { k8sMethod } from './k8s.ts';
import { namespaceMethod } from './namespace.ts';
import { podmanMethod } from './podman.ts';
import { sigstoreMethod } from './sigstore.ts';
import { slurmMethod } from './slurm.ts';
import { systemdMethod } from './systemd.ts';
import { unixMethod } from './unix.ts';

export interface WorkloadMethod {
  readonly name: string;
  /** Milliseconds for one answer. */
  readonly deadline: number;
  /** The selectors of a process. Throws when it cannot be told what the process is. */
  attest(pid: number, signal: AbortSignal): Promise<readonly Selector[]>;
  /**
   * What would change if the selectors did, cheap enough to look at for each call. Throws when the process is gone.
   * A method whose answer depends on more than the process itself gives something that changes now and then.
   */
  fingerprint(pid: number): string;
  /**
   * The image of the process's container, with the same checks as `attest` makes; undefined for a process in none of its.
   * Absent where a method knows of no images.
   */
  image?(pid: number, signal: AbortSignal): Promise<ContainerImage | undefined>;
}

export interface ContainerImage {
  /** Of the selectors that are about it. */
  readonly type: 'docker' | 'k8s';
  /** Digests of its manifest or index, `sha256:...`: what is signed of an image. */
  readonly digests: readonly string[];
}

type Options = AgentOptions['workloadAttestors'];
interface Ports {
  readonly clock: Clock;
  readonly cgroups: CgroupFiles;
}

/** One row a method: what it is made from, or undefined where the options do not ask for it. */
const table: readonly ((options: Options, ports: Ports) => WorkloadMethod | undefined)[] = [
  ({ unix }, { clock }) => unixMethod(unix, clock),
  ({ docker }, { cgroups }) => docker && dockerMethod(docker, cgroups),
  ({ podman }, { cgroups }) => podman && podmanMethod(podman, cgroups),
  ({ k8s }, { clock, cgroups }) => k8s && k8sMethod(k8s, clock, cgroups),
  ({ slurm }, { cgroups }) => (slurm?.enabled ? slurmMethod(cgroups) : undefined),
  ({ systemd }, { clock, cgroups }) => systemd && systemdMethod(systemd, clock, cgroups),
];

/** The methods that the options ask for; `unix` always. */
export function workloadMethods(
  options: Pick<AgentOptions, 'workloadAttestors'>,
  clock: Clock,
  cgroups: CgroupFiles = cgroupFiles(),
): readonly WorkloadMethod[] {
  const { sigstore, k8s } = options.workloadAttestors;
  const methods = table
    .map((make) => make(options.workloadAttestors, { clock, cgroups }))
    .filter((method) => method !== undefined);
  // What they say is of what another method has found, with its checks and its lists.
  const pods = methods.find(({ name }) => name === 'k8s');
  return [
    ...methods,
    ...(k8s?.namespaceLabels && pods ? [namespaceMethod(k8s, pods, clock)] : []),
    ...(sigstore ? [sigstoreMethod(sigstore, methods, clock)] : []),
  ];
}
