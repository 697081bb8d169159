/**
 * In which container a process is, by the kernel's word: /proc/<pid>/cgroup (cgroups(7), v1 and v2).
 *
 * A process may be allowed to make cgroups below its own and name them as it likes (a user's own slice, a container with a
 * writable cgroup tree). So a path is read from its front: what stands there was made by whoever owns the hierarchy, and
 * the first container in it counts, whatever follows. /proc/<pid>/mountinfo is not asked, although a container shows there
 * too: in a mount namespace of its own a process mounts whichever cgroup it pleases.
 */
import { readFileSync } from 'node:fs';
import { Fault, quote } from '../../src/errors.ts';

/** Where processes are described: /proc, another directory in tests. */
export interface CgroupFiles {
  /** The text of a process's cgroup file. Throws `thing/missing` when the process is gone. */
  of(pid: number): string;
  /** The agent's own. */
  readonly own: string;
}

/** What a finder saw in one path. `length`: how much of the path is the container's own cgroup. */
export interface Found {
  readonly id: string;
  readonly length: number;
  readonly podUid?: string;
  /** The user whose engine made it, when it is not root's. */
  readonly owner?: number;
}

/** Looks for a container in a path, from its front. */
export type Find = (path: string) => Found | undefined;

export interface Container {
  /** 64 hex digits. */
  readonly id: string;
  readonly podUid?: string;
  readonly owner?: number;
  /** The cgroups of the container, one a hierarchy: the same for each of its processes and for no other process. */
  readonly place: string;
}

/** A thousand nested cgroups have shorter texts. */
const longest = 256 * 1024;

/** @param root another directory than /proc in tests */
export function cgroupFiles(root = '/proc'): CgroupFiles {
  const read = (pid: number | 'self'): string => {
    let text: string;
    try {
      text = readFileSync(`${root}/${pid}/cgroup`, 'latin1');
    } catch (error) {
      throw new Fault('thing/missing', `process ${pid} is gone`, { cause: error });
    }
    if (text.length > longest) throw new Fault('limit/exceeded', `the cgroups of process ${pid} are too long a text`);
    return text;
  };
  let own: string | undefined;
  return {
    of: read,
    get own() {
      own ??= read('self');
      return own;
    },
  };
}

/** One hierarchy of a process. */
export interface Cgroup {
  /** The controllers as they stand, empty for v2. */
  readonly hierarchy: string;
  /** Begins with `/`; `/..` for each step above the root of the agent's own cgroup namespace. */
  readonly path: string;
}

/** Reads `id:controllers:path` lines. The kernel takes no newline in the name of a cgroup, so a line is a hierarchy. */
export function parseCgroups(text: string): readonly Cgroup[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const found = /^\d+:([^:]*):(\/.*)$/.exec(line);
      if (found === null) throw new Fault('system/failed', `a line of a cgroup file cannot be read: ${quote(line)}`);
      return { hierarchy: found[1]!, path: found[2]! };
    });
}

/**
 * The container of a process, or undefined when it is in none that `find` knows. Hierarchies that show no container do
 * not count; two that show different ones are refused with `state/refused`.
 * @param text the process's cgroup file
 * @param own the agent's: where its own container or node begins, a path below it is read from there
 */
export function locate(text: string, own: string, find: Find): Container | undefined {
  const roots = text === own ? undefined : ownRoots(own);
  let first: Found | undefined;
  const places: string[] = [];
  for (const { hierarchy, path } of parseCgroups(text)) {
    const root = roots?.get(hierarchy) ?? '';
    const from = root !== '' && path.startsWith(`${root}/`) ? root.length : 0;
    const found = find(path.slice(from));
    if (found === undefined) continue;
    first ??= found;
    if (found.id !== first.id || found.podUid !== first.podUid || found.owner !== first.owner) {
      throw new Fault('state/refused', 'the cgroups of a process show two containers', {
        detail: `${first.id} and ${found.id}`,
      });
    }
    places.push(`${hierarchy}:${path.slice(0, from + found.length)}`);
  }
  if (first === undefined) return undefined;
  const { id, podUid, owner } = first;
  return {
    id,
    ...(podUid === undefined ? {} : { podUid }),
    ...(owner === undefined ? {} : { owner }),
    place: places.join('\n'),
  };
}

const containerSegment = /^(?:docker-|libpod-)?[0-9a-f]{64}(?:\.scope)?$/;
const podsSegment = /^(?:kubelet-)?kubepods(?:\.slice|-[a-z]+-pod.*|-pod.*)?$/;

/**
 * What stands before the pods or the containers of this node, by hierarchy: an agent whose node is itself a container sees
 * the outer engine's path before each of its own, unless it has a cgroup namespace.
 */
function ownRoots(own: string): ReadonlyMap<string, string> {
  const roots = new Map<string, string>();
  for (const { hierarchy, path } of parseCgroups(own)) {
    const segments = path.slice(1).split('/');
    const pods = segments.findIndex((segment) => podsSegment.test(segment));
    const container = segments.findIndex((segment) => containerSegment.test(segment));
    const length = pods >= 0 ? pods : container + 1;
    if (length > 0) roots.set(hierarchy, `/${segments.slice(0, length).join('/')}`);
  }
  return roots;
}

/** Finds the first segment that `read` takes for a container. */
export function firstSegment(path: string, read: (segment: string) => string | undefined): Found | undefined {
  for (let from = 1; from < path.length; ) {
    const next = path.indexOf('/', from);
    const to = next < 0 ? path.length : next;
    const id = read(path.slice(from, to));
    if (id !== undefined) return { id, length: to };
    from = to + 1;
  }
  return undefined;
}
