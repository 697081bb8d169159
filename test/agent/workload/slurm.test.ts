import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAgentOptions } from '../../../agent/config.ts';
import { workloadMethods } from '../../../agent/workload/methods.ts';
import { slurmMethod, stepOf } from '../../../agent/workload/slurm.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { drivenClock } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { procTree } from '../support/proc-tree.ts';

const noAbort = new AbortController().signal;

for (const [name, line, selectors] of [
  ['slurm', '0::/system.slice/slurmstepd.scope/job_3385/step_batch/slurm', ['slurm:job_id:3385', 'slurm:step:batch']],
  [
    'slurm 26.05',
    '0::/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0/user/task_0',
    ['slurm:sluid:s5K1KKYAYG5D00', 'slurm:step:0'],
  ],
  ['slurm on v1', '4:freezer:/slurm/uid_1000/job_42/step_extern', ['slurm:job_id:42', 'slurm:step:extern']],
] as const) {
  workloadAttestorSuite(name, async () => {
    const tree = procTree();
    const workload = tree.put('12:misc:/', line);
    return {
      method: slurmMethod(tree.cgroups),
      workload,
      selectors,
      stranger: tree.put('0::/system.slice/docker-0123456789abcdef.scope'),
      end: () => tree.end(workload),
      close: tree.remove,
    };
  });
}

for (const [what, line, job, step] of [
  [
    'of one of several daemons on a node',
    '0::/system.slice/node1_slurmstepd.scope/job_100/step_1/slurm',
    'job_id:100',
    '1',
  ],
  [
    'of an interactive step',
    '0::/system.slice/slurmstepd.scope/sEKNK/step_interactive/user/task_0',
    'sluid:sEKNK',
    'interactive',
  ],
  [
    'in cgroups of its own below the step',
    '0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/mine/job_8/step_1',
    'job_id:7',
    '0',
  ],
  ['of a daemon with a name, on v1', '9:memory:/slurm_node1/uid_0/job_5/step_2/task_0', 'job_id:5', '2'],
] as const) {
  test(`a process ${what} is known`, () => assert.deepEqual(stepOf(`${line}\n`), { job, step }));
}

for (const line of [
  // Places in which a user may make cgroups and name them.
  '0::/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/job_999/step_0',
  '0::/user.slice/user-1000.slice/system.slice/slurmstepd.scope/job_999/step_0',
  '0::/user.slice/user-1000.slice/user@1000.service/system.slice/slurmstepd.scope/job_999/step_0',
  '0::/system.slice/docker-0123.scope/system.slice/slurmstepd.scope/job_999/step_0',
  '0::/system.slice/a.service/slurmstepd.scope/job_999/step_0',
  '1:name=systemd:/user.slice/slurm/uid_0/job_999/step_0',
  '0::/slurm/uid_0/job_999/step_0',
  // From within a cgroup namespace it cannot be told what stands in front.
  '0::/../system.slice/slurmstepd.scope/job_999/step_0',
  // Of Slurm, and of no job.
  '0::/system.slice/slurmstepd.scope/system',
  '0::/system.slice/slurmd.service',
  '0::/system.slice/slurmstepd.scope/job_12',
  '0::/system.slice/slurmstepd.scope/job_x/step_0',
  '0::/system.slice/evilslurmstepd.scope/job_1/step_0',
]) {
  test(`a process in ${line} is in no job`, () => assert.equal(stepOf(`${line}\n`), undefined));
}

test('two jobs in the hierarchies of one process are refused; one job in several is one', () => {
  assert.throws(
    () => stepOf('0::/system.slice/slurmstepd.scope/job_1/step_0\n3:cpu:/slurm/uid_0/job_2/step_0\n'),
    fault('state/refused', /two steps/),
  );
  assert.throws(
    () => stepOf('4:memory:/slurm/uid_0/job_1/step_0\n3:cpu:/slurm/uid_0/job_1/step_1\n'),
    fault('state/refused', /two steps/),
  );
  assert.deepEqual(stepOf('4:memory:/slurm/uid_0/job_1/step_0\n3:cpu:/slurm/uid_0/job_1/step_0/task_0\n'), {
    job: 'job_id:1',
    step: '0',
  });
});

test('the fingerprint changes when a process goes to another step', async () => {
  const tree = procTree();
  try {
    const method = slurmMethod(tree.cgroups);
    const pid = tree.put('0::/system.slice/slurmstepd.scope/job_1/step_0');
    const before = method.fingerprint(pid);
    tree.move(pid, '0::/system.slice/slurmstepd.scope/job_1/step_1');
    assert.notEqual(method.fingerprint(pid), before);
    assert.deepEqual(await method.attest(pid, noAbort), ['slurm:job_id:1', 'slurm:step:1']);
  } finally {
    tree.remove();
  }
});

for (const [enabled, names] of [
  [true, ['unix', 'slurm']],
  [false, ['unix']],
] as const) {
  test(`an agent whose option is ${enabled} has ${names.join(' and ')}`, async () => {
    const { options } = await readAgentOptions({
      flags: {
        trustDomain: 'example.org',
        server: '127.0.0.1:1',
        insecureBootstrap: true,
        workloadAttestorsSlurmEnabled: enabled,
      },
    });
    assert.deepEqual(
      workloadMethods(options, drivenClock()).map(({ name }) => name),
      names,
    );
  });
}
