import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { readAgentOptions } from '../../../agent/config.ts';
import { workloadAttestor } from '../../../agent/workload/attest.ts';
import { dockerMethod } from '../../../agent/workload/docker.ts';
import { workloadMethods } from '../../../agent/workload/methods.ts';
import { podmanMethod } from '../../../agent/workload/podman.ts';
import type { Fault } from '../../../src/errors.ts';
import { createLog } from '../../../src/log.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { drivenClock } from '../../support/clock.ts';
import { type FakeEngine, fakeEngine } from '../support/fake-engine.ts';
import { type ProcTree, procTree } from '../support/proc-tree.ts';

const signal = new AbortController().signal;
const id = '60b8b0b7ba5460a07b497c5659a7e2acf2fab0e2e72611f714e7055c2c4bba61';
const other = 'f'.repeat(64);
const about = {
  labels: { app: 'web', 'com.example/tier': 'a:b' },
  env: ['FOO=bar', 'EMPTY='],
  image: 'registry.example/web:1',
  digest: `sha256:${'ab'.repeat(32)}`,
};
const said = [
  'docker:label:app:web',
  'docker:label:com.example/tier:a:b',
  'docker:env:FOO=bar',
  'docker:env:EMPTY=',
  'docker:image_id:registry.example/web:1',
  `docker:image_config_digest:sha256:${'ab'.repeat(32)}`,
];

const service = (engine: FakeEngine) => ({
  asked: () => engine.asked.length,
  set: (mood: 'silent' | 'failing' | 'well') => {
    engine.mood = mood;
  },
  open: engine.open,
});

for (const [name, make, line] of [
  ['docker', (socketPath: string, tree: ProcTree) => dockerMethod({ socketPath }, tree.cgroups), `0::/docker/${id}`],
  [
    'podman',
    (socketPath: string, tree: ProcTree) =>
      podmanMethod({ socketPath, userSocketPath: '/nowhere', users: [] }, tree.cgroups),
    `0::/machine.slice/libpod-${id}.scope/container`,
  ],
  [
    'rootless podman',
    (socketPath: string, tree: ProcTree) =>
      podmanMethod({ socketPath: '/nowhere', userSocketPath: socketPath, users: [1000] }, tree.cgroups),
    `0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${id}.scope/container`,
  ],
] as const) {
  workloadAttestorSuite(name, async () => {
    const tree = procTree();
    const engine = await fakeEngine();
    const init = tree.put(line);
    const workload = tree.put(`${line}/app`);
    engine.containers.set(id, { pid: init, ...about });
    return {
      method: make(engine.socketPath, tree),
      workload,
      selectors: said,
      stranger: tree.put('0::/user.slice/user-1000.slice/session-1.scope'),
      end: () => tree.end(workload),
      service: service(engine),
      async close() {
        await engine.close();
        tree.remove();
      },
    };
  });
}

let engine: FakeEngine;
let tree: ProcTree;
before(async () => {
  engine = await fakeEngine();
  tree = procTree();
});
beforeEach(() => {
  engine.containers.clear();
  engine.asked.length = 0;
  engine.mood = 'well';
  engine.before = () => {};
});
after(async () => {
  await engine.close();
  tree.remove();
});
const docker = (version?: string) =>
  dockerMethod({ socketPath: engine.socketPath, ...(version === undefined ? {} : { version }) }, tree.cgroups);
const podman = (...users: number[]) =>
  podmanMethod({ socketPath: '/nowhere', userSocketPath: engine.socketPath, users }, tree.cgroups);

test('what an engine said of a container is kept for its other processes, and a container is told by its whole place', async () => {
  const init = tree.put(`0::/docker/${id}`);
  engine.containers.set(id, { pid: init, ...about });
  const method = docker('1.41');
  const first = await method.attest(init, signal);
  assert.deepEqual(engine.asked, [`/v1.41/containers/${id}/json`, `/v1.41/containers/${id}/json`]);
  assert.equal(await method.attest(tree.put(`0::/docker/${id}/below`), signal), first);
  assert.equal(engine.asked.length, 2);
});

test('a cgroup that somebody named like a container of another gives nothing: the first process of that is elsewhere', async () => {
  const victim = tree.put(`0::/system.slice/docker-${id}.scope`);
  engine.containers.set(id, { pid: victim, ...about });
  const method = docker();
  assert.equal((await method.attest(victim, signal)).length, said.length);
  for (const line of [
    `0::/user.slice/user-1000.slice/user@1000.service/docker-${id}.scope`,
    `0::/user.slice/user-1000.slice/user@1000.service/docker/${id}`,
    `0::/user.slice/user-1000.slice/user@1000.service/system.slice/docker-${id}.scope`,
    `0::/system.slice/docker-${id}.scope.d/docker-${id}.scope`,
  ]) {
    await assert.rejects(
      method.attest(tree.put(line), signal),
      (fault: Fault) => fault.code === 'caller/denied' && /named like container/.test(fault.message),
      line,
    );
  }
});

test('a container that makes cgroups below its own stays the container it is', async () => {
  const [mine, victim] = [tree.put(`0::/docker/${other}`), tree.put(`0::/docker/${id}`)];
  engine.containers.set(id, { pid: victim, labels: { app: 'victim' } });
  engine.containers.set(other, { pid: mine, labels: { app: 'mine' } });
  const found = await docker().attest(tree.put(`0::/docker/${other}/docker/${id}`), signal);
  assert.ok(found.includes('docker:label:app:mine' as never) && !found.includes('docker:label:app:victim' as never));
});

test('a pid that went to a process in the forged cgroup while the engine was asked is not believed', async () => {
  const forged = `0::/user.slice/user-1000.slice/user@1000.service/docker-${id}.scope`;
  const victim = tree.put(`0::/system.slice/docker-${id}.scope`);
  engine.containers.set(id, { pid: victim, ...about });
  engine.before = () => {
    // The container ends right after the first answer, and its pid is the attacker's at once.
    if (engine.asked.length === 1) tree.move(victim, forged);
    else engine.containers.set(id, { pid: 0, ...about });
  };
  await assert.rejects(
    docker().attest(tree.put(forged), signal),
    (fault: Fault) => fault.code === 'state/refused' && /cannot be seen/.test(fault.message),
  );
});

test('a hierarchy of v1 that alone shows a container is not enough, when the container shows in others too', async () => {
  const lines = [`2:memory:/docker/${id}`, `1:name=systemd:/docker/${id}`];
  engine.containers.set(id, { pid: tree.put(...lines), ...about });
  await assert.rejects(
    docker().attest(tree.put('2:memory:/user.slice', `1:name=systemd:/docker/${id}`), signal),
    (fault: Fault) => fault.code === 'caller/denied',
  );
  assert.equal((await docker().attest(tree.put(...lines), signal)).length, said.length);
});

test('two containers in the hierarchies of one process are refused', async () => {
  await assert.rejects(
    docker().attest(tree.put(`2:memory:/docker/${id}`, `1:cpu:/docker/${other}`), signal),
    (fault: Fault) => fault.code === 'state/refused' && /two containers/.test(fault.message),
  );
  assert.deepEqual(engine.asked, []);
});

test('a container that the engine does not know is none of its', async () => {
  assert.deepEqual(await docker().attest(tree.put(`0::/kubepods/besteffort/podx/${id}`), signal), []);
});

test('an agent that lives in the outer container with its cgroup tree reads paths from there', async () => {
  const inner = procTree(`0::/docker/${other}/init`);
  try {
    const pid = inner.put(`0::/docker/${other}/docker/${id}`);
    engine.containers.set(id, { pid, ...about });
    const method = dockerMethod({ socketPath: engine.socketPath }, inner.cgroups);
    assert.equal((await method.attest(pid, signal)).length, said.length);
    // Beside its own container it is a neighbour.
    const beside = inner.put(`0::/docker/${'c'.repeat(64)}`);
    engine.containers.set('c'.repeat(64), { pid: beside, labels: { app: 'beside' } });
    assert.ok((await method.attest(beside, signal)).includes('docker:label:app:beside' as never));
  } finally {
    inner.remove();
  }
});

for (const [mood, code] of [
  ['garbage', 'peer/failed'],
  ['endless', 'limit/exceeded'],
  ['failing', 'peer/failed'],
] as const) {
  test(`an engine that is ${mood} is a fault, and leaves nothing open`, async () => {
    engine.containers.set(id, { pid: 1, ...about });
    engine.mood = mood;
    await assert.rejects(docker().attest(tree.put(`0::/docker/${id}`), signal), (fault: Fault) => fault.code === code);
    while ((await engine.open()) > 0) await new Promise(setImmediate);
  });
}

test('an engine that is not there is a fault that quotes its socket', async () => {
  await assert.rejects(
    dockerMethod({ socketPath: '/nowhere/docker.sock' }, tree.cgroups).attest(tree.put(`0::/docker/${id}`), signal),
    (fault: Fault) => fault.code === 'peer/unavailable' && fault.message.includes('"/nowhere/docker.sock"'),
  );
});

test("a user's engine is asked only for users that are named, and root's never about a user's containers", async () => {
  const line = `0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${id}.scope/container`;
  const pid = tree.put(line);
  engine.containers.set(id, { pid, ...about });
  assert.deepEqual(await podman().attest(pid, signal), []);
  assert.deepEqual(await podman(1001).attest(pid, signal), []);
  assert.deepEqual(engine.asked, []);
  assert.equal((await podman(1000).attest(pid, signal)).length, said.length);
});

test("a user's engine that claims a process of another user is not believed", async () => {
  const forged = tree.put(`0::/user.slice/user-1000.slice/user@1000.service/libpod-${id}.scope`);
  const ofAnother = tree.put(`0::/user.slice/user-1001.slice/user@1001.service/libpod-${id}.scope`);
  engine.containers.set(id, { pid: forged, labels: { app: 'forged' } });
  assert.deepEqual(await podman(1000).attest(ofAnother, signal), []);
});

test('conmon, which watches a container from outside, is not in it', async () => {
  assert.deepEqual(await podman(1000).attest(tree.put(`0::/machine.slice/libpod-conmon-${id}.scope`), signal), []);
});

test('the fingerprint changes with the cgroups', () => {
  const pid = tree.put(`0::/docker/${id}`);
  const before = docker().fingerprint(pid);
  tree.move(pid, `0::/docker/${other}`);
  assert.notEqual(docker().fingerprint(pid), before);
});

test('an engine that hangs keeps nobody waiting but its own containers, those as long as its deadline, and is told of once', async (t) => {
  const clock = drivenClock();
  engine.mood = 'silent';
  const own = procTree();
  t.after(own.remove);
  const { options } = await readAgentOptions({
    flags: {
      trustDomain: 'example.org',
      server: '127.0.0.1:1',
      insecureBootstrap: true,
      workloadAttestorsDockerSocketPath: engine.socketPath,
    },
  });
  const methods = workloadMethods(options, clock, own.cgroups);
  assert.deepEqual(
    methods.map(({ name }) => name),
    ['unix', 'docker'],
  );
  const lines: string[] = [];
  const log = createLog({ level: 'info', format: 'text', clock, write: (line) => lines.push(line) });
  const attestor = workloadAttestor(methods, { clock, log });
  const caller = () => ({ uid: 0, gid: 0, pid: process.pid, alive: () => true, close() {} });
  own.move(process.pid, `0::/docker/${id}`);
  const contained = Promise.all([1, 2, 3].map(() => attestor.attest(caller())));
  while (engine.asked.length === 0) await new Promise(setImmediate);
  own.move(process.pid, '0::/user.slice/session-1.scope');
  const host = await attestor.attest(caller());
  assert.ok(host.length > 0 && host.every((one) => one.startsWith('unix:')));
  own.move(process.pid, `0::/docker/${id}`);
  await clock.advance(5_000);
  assert.deepEqual(await contained, [host, host, host]);
  assert.equal(lines.length, 1, lines.join(''));
  assert.match(lines[0]!, /workload attestation failed .*docker gave no answer within 5000 ms/);
  while ((await engine.open()) > 0) await new Promise(setImmediate);
});
