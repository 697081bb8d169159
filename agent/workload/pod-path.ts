/**
 * Where kubelet puts a container: its pod's cgroup in `kubepods`, below it the container's, from the very front of the path.
 * Every directory on that way is root's, so nobody else can have made one there. An agent in a cgroup namespace sees the
 * way from its own cgroup, with `/..` for each step up; those are steps to directories of root too.
 */
import type { Find } from './cgroup.ts';

// A UUID, with underscores under systemd; a static pod has a hash.
const uid = '(?<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})';
const container = '(?:(?:cri-containerd|containerd|crio|docker|libpod)-)?(?<id>[0-9a-f]{64})(?:\\.scope)?(?=/|$)';
const slice = '(?:kubelet-)?kubepods(?:-(?:burstable|besteffort))?';

const ways: readonly RegExp[] = [
  // The cgroupfs driver; `/kubelet` is a root that kind gives it.
  `^(?:/kubelet)?/kubepods(?:/(?:burstable|besteffort))?/pod${uid}/${container}`,
  // The systemd driver.
  `^(?:/kubelet\\.slice)?(?:/${slice}\\.slice){1,2}/${slice}-pod${uid}\\.slice/${container}`,
  // containerd told to use cgroupfs by a kubelet that uses systemd: it takes systemd's triple for a name.
  `^(?:/system\\.slice/containerd\\.service)?/${slice}-pod${uid}\\.slice:cri-containerd:(?<id>[0-9a-f]{64})(?=/|$)`,
  // From within a cgroup namespace: the part of the way that is not the agent's own.
  `^(?:/\\.\\.)+(?:/kubepods)?(?:/(?:burstable|besteffort))?(?:/pod${uid})?/${container}`,
  `^(?:/\\.\\.)+(?:/${slice}\\.slice){0,2}(?:/${slice}-pod${uid}\\.slice)?/${container}`,
].map((way) => new RegExp(way));

/** The pod's uid is as Kubernetes writes it; absent for a container of the agent's own pod in a cgroup namespace. */
export const findPod: Find = (path) => {
  for (const way of ways) {
    const found = way.exec(path);
    if (found === null) continue;
    const podUid = found.groups!['uid']?.replaceAll('_', '-');
    return { id: found.groups!['id']!, length: found[0].length, ...(podUid === undefined ? {} : { podUid }) };
  }
  return undefined;
};
