/**
 * `systemd`: the unit of a process, `id` and `fragment_path`, from systemd's manager on the system bus
 * (org.freedesktop.systemd1). Where there is no bus at all, the cgroup's path still tells the id: systemd makes a unit's
 * cgroup below slices alone, and what a unit makes below its own cannot change that.
 */
import { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { gate } from '../../src/run/gate.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type CgroupFiles, parseCgroups } from './cgroup.ts';
import type { WorkloadMethod } from './methods.ts';
import { askUnit, type LoadBus, loadBus, type Unit } from './systemd-bus.ts';

export interface SystemdOptions {
  readonly socketPath: string;
}

/** Milliseconds. */
const deadline = 5_000;
/** The bus takes only so many connections of one user. */
const mostConnections = 16;

export function systemdMethod(
  { socketPath }: SystemdOptions,
  clock: Clock,
  cgroups: CgroupFiles,
  load: LoadBus = loadBus,
): WorkloadMethod {
  const enter = gate(clock, mostConnections, deadline);
  return {
    name: 'systemd',
    deadline,
    fingerprint: (pid) => cgroups.of(pid),
    async attest(pid, signal) {
      const place = unitInPath(cgroups.of(pid));
      if (place === 'none') return [];
      const leave = await enter(signal);
      try {
        return selectors(await askUnit(await load(), socketPath, pid, signal));
      } catch (error) {
        if (isAbsent(error) && place !== 'hidden') return selectors({ id: place.id, fragmentPath: '' });
        throw error;
      } finally {
        leave();
      }
    },
  };
}

/** A unit that was made at run time has no file, and then no selector for it. */
function selectors(unit: Unit | undefined): readonly Selector[] {
  if (unit === undefined) return [];
  const { id, fragmentPath } = unit;
  return [
    ...(id === '' ? [] : [makeSelector('systemd', `id:${id}`)]),
    ...(fragmentPath === '' ? [] : [makeSelector('systemd', `fragment_path:${fragmentPath}`)]),
  ];
}

/** Whether there is no bus on this machine; one that is there and fails is another matter. */
function isAbsent(error: unknown): boolean {
  const code = error instanceof Fault ? (error.cause as NodeJS.ErrnoException | undefined)?.code : undefined;
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

/**
 * The unit by the path of the cgroup that systemd manages: v2, or v1's `name=systemd` where both are. `hidden`: the agent
 * is in a cgroup namespace that shows only a part of the path.
 */
export function unitInPath(text: string): { readonly id: string } | 'none' | 'hidden' {
  const all = parseCgroups(text);
  const managed =
    all.find(({ hierarchy }) => hierarchy === 'name=systemd') ?? all.find(({ hierarchy }) => hierarchy === '');
  if (managed === undefined) return 'none';
  const segments = managed.path.slice(1).split('/');
  if (segments[0] === '..') return 'hidden';
  const first = segments.find((segment) => !segment.endsWith('.slice'));
  // systemd puts a "_" before names that the kernel would take for its own files.
  const id =
    first === undefined ? undefined : /^_?([A-Za-z0-9:_.@\\-]+\.(?:service|scope|socket|mount|swap))$/.exec(first)?.[1];
  return id === undefined ? 'none' : { id };
}
