/** `docker`: containers of the Docker engine of this machine, told by its socket. See container-engine.ts. */
import { type CgroupFiles, type Find, firstSegment } from './cgroup.ts';
import { engineMethod } from './container-engine.ts';
import type { WorkloadMethod } from './methods.ts';

export interface DockerOptions {
  readonly socketPath: string;
  readonly version?: string;
}

/** `docker-<id>.scope` under systemd; else `<id>` alone, below `/docker` or any other parent that the engine was told. */
const segment = /^(?:docker-([0-9a-f]{64})\.scope|([0-9a-f]{64}))$/;

export const findDocker: Find = (path) =>
  firstSegment(path, (one) => {
    const found = segment.exec(one);
    return found?.[1] ?? found?.[2];
  });

export function dockerMethod({ socketPath, version }: DockerOptions, cgroups: CgroupFiles): WorkloadMethod {
  return engineMethod({ name: 'docker', find: findDocker, socketOf: () => socketPath, version }, cgroups);
}
