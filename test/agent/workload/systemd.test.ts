import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemdMethod, unitInPath } from '../../../agent/workload/systemd.ts';
import { Fault } from '../../../src/errors.ts';
import { selectorSet } from '../../../src/spiffe/selector.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { drivenClock } from '../../support/clock.ts';
import { fakeBus, fakeSystemd } from '../support/fake-systemd.ts';
import { procTree } from '../support/proc-tree.ts';

const noAbort = new AbortController().signal;
const nginx = { id: 'nginx.service', fragmentPath: '/lib/systemd/system/nginx.service' };
const said = ['systemd:fragment_path:/lib/systemd/system/nginx.service', 'systemd:id:nginx.service'];

async function rig() {
  const bus = await fakeBus();
  const systemd = await fakeSystemd(bus.socketPath);
  const tree = procTree();
  const workload = tree.put('0::/system.slice/nginx.service');
  systemd.units.set(workload, nginx);
  return {
    bus,
    systemd,
    tree,
    workload,
    method: systemdMethod({ socketPath: bus.socketPath }, drivenClock(), tree.cgroups),
    async close() {
      systemd.close();
      await bus.close();
      tree.remove();
    },
  };
}
async function rigFor(t: TestContext) {
  const one = await rig();
  t.after(() => one.close());
  return one;
}

workloadAttestorSuite('systemd', async () => {
  const one = await rig();
  return {
    ...one,
    selectors: said,
    stranger: one.tree.put('0::/docker/abc'),
    end: () => one.tree.end(one.workload),
    service: {
      asked: () => one.systemd.asked,
      set: (mood) => {
        one.systemd.mood = mood;
      },
      open: async () => one.bus.clients(),
    },
  };
});

test('a unit that was made at run time has an id and no fragment path', async (t) => {
  const { systemd, tree, method } = await rigFor(t);
  const pid = tree.put('0::/user.slice/user-1000.slice/session-3.scope');
  systemd.units.set(pid, { id: 'session-3.scope', fragmentPath: '' });
  assert.deepEqual(await method.attest(pid, noAbort), ['systemd:id:session-3.scope']);
});

test('a process that systemd knows no unit of has none, whatever its cgroup is called', async (t) => {
  const { tree, method } = await rigFor(t);
  assert.deepEqual(await method.attest(tree.put('0::/system.slice/nginx.service'), noAbort), []);
});

test('where there is no bus the path of the cgroup tells the id; the bus is asked all the same when it is there', async (t) => {
  const { tree, systemd, workload, bus } = await rigFor(t);
  const missing = systemdMethod({ socketPath: join(bus.socketPath, 'none') }, drivenClock(), tree.cgroups);
  await assert.rejects(missing.attest(workload, noAbort), (fault: Fault) => fault.code === 'peer/unavailable');
  const absent = systemdMethod({ socketPath: '/nowhere/bus' }, drivenClock(), tree.cgroups);
  assert.deepEqual(await absent.attest(workload, noAbort), ['systemd:id:nginx.service']);
  await assert.rejects(
    absent.attest(tree.put('0::/../x.service'), noAbort),
    (fault: Fault) => fault.code === 'peer/unavailable',
  );
  assert.equal(systemd.asked, 0);
});

test('a bus that closes in the middle and one that talks nonsense are faults', async (t) => {
  const { tree, workload, bus } = await rigFor(t);
  for (const [name, first] of [
    ['closes', ''],
    ['talks', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
  ] as const) {
    const socketPath = `${bus.socketPath}.${name}`;
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(first));
    });
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
    t.after(() => server.close());
    const method = systemdMethod({ socketPath }, drivenClock(), tree.cgroups);
    await assert.rejects(
      method.attest(workload, noAbort),
      (fault: Fault) => fault instanceof Fault && fault.code.startsWith('peer/'),
      name,
    );
  }
});

test('an answer of another type is a fault', async (t) => {
  const { systemd, workload, method } = await rigFor(t);
  systemd.mood = 'strange';
  await assert.rejects(method.attest(workload, noAbort), (fault: Fault) => fault.code === 'peer/failed');
});

test('fifty processes at once are told, and every connection is closed', async (t) => {
  const { systemd, tree, method, bus } = await rigFor(t);
  const pids = Array.from({ length: 50 }, () => tree.put('0::/system.slice/nginx.service'));
  for (const pid of pids) systemd.units.set(pid, nginx);
  const all = await Promise.all(pids.map((pid) => method.attest(pid, noAbort)));
  for (const found of all) assert.deepEqual(selectorSet(found), said);
  while (bus.clients() > 0) await new Promise(setImmediate);
});

for (const [path, unit] of [
  ['/system.slice/nginx.service', 'nginx.service'],
  ['/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
  ['/system.slice/nginx.service/evil.slice/sshd.service', 'nginx.service'],
  ['/user.slice/user-1000.slice/user@1000.service/app.slice/sshd.service', 'user@1000.service'],
  ['/system.slice/_cpu.service', 'cpu.service'],
  ['/init.scope', 'init.scope'],
  ['/', 'none'],
  ['/user.slice', 'none'],
  ['/docker/abc/system.slice/sshd.service', 'none'],
  ['/../system.slice/sshd.service', 'hidden'],
] as const) {
  test(`the unit of ${path} is ${unit}`, () => {
    const found = unitInPath(`0::${path}\n`);
    assert.equal(typeof found === 'string' ? found : found.id, unit);
  });
}

test('of several hierarchies the one that systemd manages counts', () => {
  const text = '5:memory:/a.service\n1:name=systemd:/system.slice/b.service\n0::/system.slice/c.service\n';
  assert.deepEqual(unitInPath(text), { id: 'b.service' });
  assert.equal(unitInPath('5:memory:/a.service\n'), 'none');
});
