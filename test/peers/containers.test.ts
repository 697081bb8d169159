/**
 * Workloads in containers of real engines, Docker and Podman, told by our agent through real cgroups; and systemd's interface on a real
 * D-Bus daemon. What the stand-ins of the other tests answer is compared with the real thing here.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before, describe } from 'node:test';
import { cgroupFiles, parseCgroups } from '../../agent/workload/cgroup.ts';
import { getJson } from '../../agent/workload/get-json.ts';
import { podmanMethod } from '../../agent/workload/podman.ts';
import { systemdMethod } from '../../agent/workload/systemd.ts';
import { systemClock } from '../../src/run/clock.ts';
import { peerPath } from '../../tools/peers.ts';
import { inspectAnswer } from '../agent/support/fake-engine.ts';
import { fakeSystemd } from '../agent/support/fake-systemd.ts';
import { procTree } from '../agent/support/proc-tree.ts';
import { type Dockerd, makeImage, startDockerd } from './support/dockerd.ts';
import { type Agent, createEntry, joinToken, startAgent, startServer, writeBundle } from './support/pair.ts';
import { makePlace } from './support/place.ts';
import { type Event, run, runOk } from './support/program.ts';
import { until } from './support/until.ts';

const alias = 'spiffe://example.org/node';
const signal = new AbortController().signal;

describe('containers of Docker', () => {
  const place = makePlace();
  let engine: Dockerd;
  let agent: Agent;

  before(async () => {
    assert.equal(process.getuid!(), 0, 'this test starts containers, which only root may');
    engine = await startDockerd(place);
    const digest = await engine.image('web', peerPath('peer-workload'));
    const server = await startServer('mutual', place, 'server');
    await createEntry(server, 'spiffe://example.org/web', alias, [
      'docker:label:app:web',
      'docker:image_id:web:latest',
      `docker:image_config_digest:${digest}`,
      'docker:env:TIER=front',
    ]);
    await createEntry(server, 'spiffe://example.org/other', alias, ['docker:label:app:other']);
    agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
      config: { workloadAttestors: { docker: { socketPath: engine.socketPath } } },
    });
    chmodSync(join(agent.socket, '..'), 0o755);
  });
  after(() => place.close());

  const container = (...args: string[]): string[] => [
    ...['run', '--network', 'none', '-v', `${join(agent.socket, '..')}:/s`, '-e', 'TIER=front', ...args, 'web:latest'],
    '/program',
  ];
  const idsOf = (output: string): string[] => {
    const event = JSON.parse(output.trim().split('\n').at(-1) ?? '{}') as Event;
    return event.svids?.map((svid: { id: string }) => svid.id) ?? [event.message];
  };
  const fetched = async (...args: string[]): Promise<string[]> => {
    const command = [...container('--rm', ...args), 'x509', '-socket', 'unix:///s/api.sock'];
    return idsOf((await run('docker', ['--host', `unix://${engine.socketPath}`, ...command])).stdout);
  };

  for (const namespace of ['host', 'private']) {
    test(`each gets the identity of its own label, image and environment, with the ${namespace} cgroup namespace`, async () => {
      const flag = ['--cgroupns', namespace];
      assert.deepEqual(await fetched(...flag, '--label', 'app=web'), ['spiffe://example.org/web']);
      assert.deepEqual(await fetched(...flag, '--label', 'app=other'), ['spiffe://example.org/other']);
      const [refusal] = await fetched(...flag, '--label', 'app=none', '-e', 'SECRET=canary');
      assert.match(refusal!, /no identity issued/);
      assert.doesNotMatch(refusal!, /canary/);
    });
  }
  test('a process in cgroups that are named like those of a container gets nothing of it', async () => {
    const id = await engine.docker(...container('-d', '--label', 'app=web'), 'watch', '-socket', 'unix:///s/api.sock');
    await until('the container is served', 60_000, async () => /spiffe:.*web/.test(await engine.docker('logs', id)));
    const pid = await engine.docker('inspect', '-f', '{{.State.Pid}}', id);
    // The same last steps, below a directory that could be somebody's own, in each hierarchy of this machine.
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const dirs = parseCgroups(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).flatMap(({ hierarchy }) => {
      const isIt = (line: string): boolean => {
        const [, kind, , options = ''] = / - (\S+) (\S+) (\S+)/.exec(line) ?? [];
        return hierarchy === ''
          ? kind === 'cgroup2'
          : kind === 'cgroup' && options.split(',').join().includes(hierarchy);
      };
      const mount = mounts.find(isIt)?.split(' ')[4];
      return mount === undefined ? [] : [join(mount, 'mutual-test')];
    });
    assert.ok(dirs.length > 0, 'no hierarchy of cgroups is mounted here');
    const made: string[] = [];
    try {
      for (const dir of dirs)
        for (const path of [dir, join(dir, 'docker'), join(dir, 'docker', id)]) {
          mkdirSync(path);
          made.unshift(path);
          // v1's cpusets begin empty and take nobody then.
          for (const file of ['cpuset.cpus', 'cpuset.mems'].filter((one) => existsSync(join(path, one))))
            if (dir.includes('/cpuset')) writeFileSync(join(path, file), readFileSync(join(path, '..', file)));
        }
      const enter = dirs.map((dir) => `echo $$ > ${join(dir, 'docker', id)}/cgroup.procs`).join(' && ');
      const script = `${enter} && exec ${peerPath('peer-workload')} x509 -socket unix://${agent.socket}`;
      const { stdout, stderr } = await run('sh', ['-c', script]);
      const [refusal] = idsOf(stdout || JSON.stringify({ message: stderr }));
      assert.match(refusal!, /no identity issued/);
      assert.doesNotMatch(refusal!, /docker:/);
      await agent.program().line(/workload attestation failed.*named like container/);
    } finally {
      for (const path of made) await until('nobody is in it', 60_000, () => (rmdirSync(path), true));
    }
    await engine.docker('rm', '-f', id);
  });

  test('what the stand-in answers has the names and types of what Docker answers', async () => {
    const id = await engine.docker(...container('-d', '--label', 'app=web'), 'watch', '-socket', 'unix:///s/api.sock');
    const { status, body } = await getJson(
      'docker',
      { socketPath: engine.socketPath },
      { path: `/containers/${id}/json`, signal, most: 1e6 },
    );
    assert.equal(status, 200);
    const compare = (ours: unknown, real: unknown, at: string): void => {
      assert.equal(typeof ours, typeof real, at);
      assert.equal(Array.isArray(ours), Array.isArray(real), at);
      if (typeof ours !== 'object' || ours === null || Array.isArray(ours)) return;
      for (const [name, one] of Object.entries(ours))
        compare(one, (real as Record<string, unknown>)[name], `${at}.${name}`);
    };
    compare(
      inspectAnswer(id, { pid: 1, labels: { app: 'web' }, env: ['A=b'], image: 'web:latest' }),
      body,
      'container',
    );
    const missing = await getJson(
      'docker',
      { socketPath: engine.socketPath },
      { path: `/containers/${'0'.repeat(64)}/json`, signal, most: 1e6 },
    );
    assert.equal(missing.status, 404);
    await engine.docker('rm', '-f', id);
  });
});

test('a container of a real Podman, through its own service and real cgroups', async (t) => {
  const place = makePlace();
  let started: string | undefined;
  t.after(async () => {
    if (started !== undefined) await podman('rm', '-f', '-t', '0', started);
    // It leaves its stores mounted for the next command.
    const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const mounted = lines.map((line) => line.split(' ')[4] ?? '').filter((path) => path.startsWith(`${place.dir}/`));
    for (const path of mounted.reverse()) await runOk('umount', [path]);
    await place.close();
  });
  const socketPath = place.path('podman', 'sock');
  const own = ['--root', place.path('podman', 'root'), '--runroot', place.path('podman', 'run')];
  // runc comes with dockerd; crun refuses machines that have both versions of cgroups.
  const flags = [...own, '--storage-driver', 'vfs', '--cgroup-manager', 'cgroupfs', '--runtime', '/usr/sbin/runc'];
  const podman = async (...args: string[]): Promise<string> =>
    (await runOk(peerPath('podman'), [...flags, ...args])).trim();
  const image = await makeImage(place, 'web', peerPath('peer-workload'));
  const digest = await podman('import', '-q', image, 'web');
  await place.start('podman', peerPath('podman'), [...flags, 'system', 'service', '-t', '0', `unix://${socketPath}`]);
  const limits = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024'];
  const args = ['-d', '--network', 'none', ...limits, '--label', 'app=web', '-e', 'TIER=front', 'web'];
  const id = await podman('run', ...args, '/program', 'watch', '-socket', 'unix:///nobody');
  started = id;
  const pid = Number(await podman('inspect', '-f', '{{.State.Pid}}', id));
  const method = podmanMethod({ socketPath, userSocketPath: '/nowhere/%d', users: [] }, cgroupFiles());
  const found = await until('the service answers', 60_000, () => method.attest(pid, signal));
  for (const one of [
    'label:app:web',
    'env:TIER=front',
    'image_id:localhost/web:latest',
    `image_config_digest:${digest}`,
  ])
    assert.ok(found.includes(`docker:${one}` as never), `${one} is not in ${found.join(' ')}`);
  assert.deepEqual(await method.attest(process.pid, signal), []);
});

test("systemd's interface through a real D-Bus daemon", async (t) => {
  const place = makePlace();
  t.after(() => place.close());
  const [socketPath, config] = [place.path('bus', 'sock'), place.path('bus', 'conf')];
  writeFileSync(
    config,
    `<busconfig><type>system</type><listen>unix:path=${socketPath}</listen><auth>EXTERNAL</auth><policy context="default">` +
      '<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>',
  );
  await place.start('bus', peerPath('dbus-daemon'), ['--config-file', config, '--nofork', '--nopidfile']);
  const tree = procTree();
  t.after(tree.remove);
  const systemd = await until('the bus is there', 60_000, () => fakeSystemd(socketPath));
  t.after(systemd.close);
  const pid = tree.put('0::/system.slice/nginx.service');
  const method = systemdMethod({ socketPath }, systemClock, tree.cgroups);
  assert.deepEqual(await method.attest(pid, signal), []);
  systemd.units.set(pid, { id: 'nginx.service', fragmentPath: '/lib/systemd/system/nginx.service' });
  assert.deepEqual(await method.attest(pid, signal), [
    'systemd:id:nginx.service',
    'systemd:fragment_path:/lib/systemd/system/nginx.service',
  ]);
  systemd.mood = 'failing';
  await assert.rejects(method.attest(pid, signal), /it is broken/);
});
