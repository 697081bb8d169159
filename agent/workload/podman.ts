/**
 * `podman`: containers of Podman, root's and of users. A user's engine is run by that user, who can have it say anything:
 * it is asked only for users that the options name, and only about containers in that user's own slice.
 */
import { type CgroupFiles, type Find, firstSegment } from './cgroup.ts';
import { engineMethod } from './container-engine.ts';
import type { WorkloadMethod } from './methods.ts';

export interface PodmanOptions {
  readonly socketPath: string;
  /** `%d` stands for the user's id. */
  readonly userSocketPath: string;
  readonly users: readonly number[];
  readonly version?: string;
}

const segment = /^libpod-([0-9a-f]{64})(?:\.scope)?$/;
const slice = /^(?:\/\.\.)*\/user\.slice\/user-(\d{1,10})\.slice\//;

export const findPodman: Find = (path) => {
  const found = firstSegment(path, (one) => segment.exec(one)?.[1]);
  const owner = found === undefined ? undefined : slice.exec(path)?.[1];
  return found === undefined || owner === undefined || owner === '0' ? found : { ...found, owner: Number(owner) };
};

export function podmanMethod(options: PodmanOptions, cgroups: CgroupFiles): WorkloadMethod {
  return engineMethod(
    {
      name: 'podman',
      find: findPodman,
      version: options.version,
      socketOf({ owner }) {
        if (owner === undefined) return options.socketPath;
        return options.users.includes(owner) ? options.userSocketPath.replaceAll('%d', String(owner)) : undefined;
      },
    },
    cgroups,
  );
}
