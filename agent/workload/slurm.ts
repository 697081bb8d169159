/**
 * `slurm`: the job and the step of a process, `job_id` or `sluid`, and `step`, by the cgroup that slurmstepd has put it in.
 *
 * The path is read from its very front: `/system.slice` under systemd (cgroups v2), `/slurm` at the root of a hierarchy of
 * v1. Both are root's, so that nobody else can have made what follows; a look-alike below a user's own slice or in a
 * container says nothing. An agent that sees such paths from within a cgroup namespace sees no job: it has to share the
 * host's.
 */
import { Fault } from '../../src/errors.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type CgroupFiles, parseCgroups } from './cgroup.ts';
import type { WorkloadMethod } from './methods.ts';

interface Step {
  /** `job_id:N` with its number, or `sluid:S...`, which Slurm 26.05 has in place of it. */
  readonly job: string;
  readonly step: string;
}

// With several slurmd on a node, its name stands before.
const v2 =
  /^\/system\.slice\/(?:[^/]+_)?slurmstepd\.scope\/(?:job_(\d+)|(s[0-9A-Za-z]+))\/step_([0-9A-Za-z_]+)(?:\/|$)/;
const v1 = /^\/slurm(?:_[^/]+)?\/uid_\d+\/job_(\d+)\/step_([0-9A-Za-z_]+)(?:\/|$)/;

export function slurmMethod(cgroups: CgroupFiles): WorkloadMethod {
  return {
    name: 'slurm',
    // Nothing is waited for.
    deadline: 1_000,
    fingerprint: (pid) => cgroups.of(pid),
    async attest(pid) {
      const found = stepOf(cgroups.of(pid));
      return found === undefined ? [] : selectors(found);
    },
  };
}

/** The step of a process, undefined for one that is in none. Throws `state/refused` when its hierarchies show two. */
export function stepOf(text: string): Step | undefined {
  let found: Step | undefined;
  for (const { hierarchy, path } of parseCgroups(text)) {
    const one = hierarchy === '' ? stepV2(path) : stepV1(path);
    if (one === undefined) continue;
    found ??= one;
    if (one.job !== found.job || one.step !== found.step) {
      throw new Fault('state/refused', 'the cgroups of a process show two steps of Slurm', {
        detail: `${found.job} step ${found.step} and ${one.job} step ${one.step}`,
      });
    }
  }
  return found;
}

function stepV2(path: string): Step | undefined {
  const [, id, sluid, step] = v2.exec(path) ?? [];
  return step === undefined ? undefined : { job: id === undefined ? `sluid:${sluid}` : `job_id:${id}`, step };
}

function stepV1(path: string): Step | undefined {
  const [, id, step] = v1.exec(path) ?? [];
  return step === undefined ? undefined : { job: `job_id:${id}`, step };
}

const selectors = ({ job, step }: Step): readonly Selector[] => [
  makeSelector('slurm', job),
  makeSelector('slurm', `step:${step}`),
];
