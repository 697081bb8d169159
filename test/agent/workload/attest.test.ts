import assert from 'node:assert/strict';
import { test } from 'node:test';
import { workloadAttestor } from '../../../agent/workload/attest.ts';
import type { WorkloadMethod } from '../../../agent/workload/methods.ts';
import { Fault } from '../../../src/errors.ts';
import { createLog, silentLog } from '../../../src/log.ts';
import type { UnixPeer } from '../../../src/rpc/unix-peer.ts';
import { makeSelector } from '../../../src/spiffe/selector.ts';
import { drivenClock } from '../../support/clock.ts';

interface Process {
  alive: boolean;
  mark: string;
}

function peerOf(process: Process): UnixPeer {
  return { uid: 1, gid: 1, pid: 77, alive: () => process.alive, close() {} };
}

function methodOf(
  name: string,
  process: Process,
  attest: WorkloadMethod['attest'] = async () => [makeSelector(name, process.mark)],
): WorkloadMethod & { asked: number } {
  const method = {
    name,
    deadline: 1_000,
    asked: 0,
    attest(pid: number, signal: AbortSignal) {
      method.asked++;
      return attest(pid, signal);
    },
    fingerprint: () => process.mark,
  };
  return method;
}

const rig = (...methods: WorkloadMethod[]) => {
  const clock = drivenClock();
  return { clock, attestor: workloadAttestor(methods, { clock, log: silentLog }) };
};

test('the selectors of every method count together, sorted and once', async () => {
  const process = { alive: true, mark: 'm' };
  const { attestor } = rig(
    methodOf('b', process),
    methodOf('a', process, async () => [makeSelector('a', '2'), makeSelector('a', '1'), makeSelector('b', 'm')]),
  );
  assert.deepEqual(await attestor.attest(peerOf(process)), ['a:1', 'a:2', 'b:m']);
});

test('a connection whose process is unchanged is attested once, and its second answer needs no waiting', async () => {
  const process = { alive: true, mark: 'm' };
  const method = methodOf('a', process);
  const { attestor } = rig(method);
  const peer = peerOf(process);
  const selectors = await attestor.attest(peer);
  assert.equal(attestor.attest(peer), selectors);
  assert.equal(method.asked, 1);
  process.mark = 'n';
  assert.deepEqual(await attestor.attest(peer), ['a:n']);
  assert.equal(method.asked, 2);
});

test('calls at once on a new connection share one attestation', async () => {
  const process = { alive: true, mark: 'm' };
  const method = methodOf('a', process);
  const { attestor } = rig(method);
  const peer = peerOf(process);
  const [one, two] = await Promise.all([attestor.attest(peer), attestor.attest(peer)]);
  assert.equal(one, two);
  assert.equal(method.asked, 1);
});

test('WE-13 a pid that went to another process while it was looked at gives nothing', async () => {
  const process = { alive: true, mark: 'm' };
  const { attestor } = rig(
    methodOf('a', process, async () => {
      process.alive = false;
      return [makeSelector('a', 'stolen')];
    }),
  );
  await assert.rejects(
    async () => attestor.attest(peerOf(process)),
    (fault: Fault) => fault.status === 7 && /is gone/.test(fault.message),
  );
});

test('a process that died after its connection was attested gets nothing more', async () => {
  const process = { alive: true, mark: 'm' };
  const { attestor } = rig(methodOf('a', process));
  const peer = peerOf(process);
  await attestor.attest(peer);
  process.alive = false;
  assert.throws(
    () => attestor.attest(peer),
    (fault: Fault) => fault.status === 7,
  );
});

test('a process that cannot be seen from here (pid 0) gets nothing', () => {
  const { attestor } = rig();
  assert.throws(
    () => attestor.attest({ ...peerOf({ alive: true, mark: '' }), pid: 0 }),
    (fault: Fault) => fault.status === 7,
  );
});

test('a process that became another user while it was looked at is looked at again: no mixture is kept', async () => {
  const process = { alive: true, mark: 'first' };
  let asked = 0;
  const { attestor } = rig(
    methodOf('a', process, async () => {
      const seen = process.mark;
      if (asked++ === 0) process.mark = 'second';
      return [makeSelector('a', seen)];
    }),
  );
  assert.deepEqual(await attestor.attest(peerOf(process)), ['a:second']);
});

test('a process that never holds still is refused', async () => {
  const process = { alive: true, mark: '0' };
  const { attestor } = rig(
    methodOf('a', process, async () => {
      process.mark += '0';
      return [makeSelector('a', 'x')];
    }),
  );
  await assert.rejects(
    async () => attestor.attest(peerOf(process)),
    (fault: Fault) => fault.status === 14,
  );
});

test('a method that fails leaves only its own selectors out', async () => {
  const process = { alive: true, mark: 'm' };
  const { attestor } = rig(
    methodOf('a', process),
    methodOf('b', process, () => Promise.reject(new Error('no daemon'))),
  );
  assert.deepEqual(await attestor.attest(peerOf(process)), ['a:m']);
});

test('WE-15 when every method fails the caller is told UNAVAILABLE', async () => {
  const process = { alive: true, mark: 'm' };
  const { attestor } = rig(methodOf('b', process, () => Promise.reject(new Error('no daemon'))));
  await assert.rejects(
    async () => attestor.attest(peerOf(process)),
    (fault: Fault) => fault.status === 14,
  );
});

test('a method that hangs holds up the others until its own deadline and no longer', async () => {
  const process = { alive: true, mark: 'm' };
  let aborted = false;
  const { clock, attestor } = rig(
    methodOf('a', process),
    methodOf('b', process, (_pid, signal) => {
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      return new Promise(() => {});
    }),
  );
  let found: readonly string[] = [];
  void Promise.resolve(attestor.attest(peerOf(process))).then((selectors) => {
    found = selectors;
  });
  await clock.advance(999);
  assert.deepEqual(found, []);
  await clock.advance(1);
  assert.deepEqual(found, ['a:m']);
  assert.equal(aborted, true);
});

test('what a failed method took away is looked for again some seconds later, on the same connection', async () => {
  const process = { alive: true, mark: 'm' };
  let isDown = true;
  const { clock, attestor } = rig(
    methodOf('a', process),
    methodOf('b', process, async () => {
      if (isDown) throw new Error('no daemon');
      return [makeSelector('b', 'm')];
    }),
  );
  const peer = peerOf(process);
  const first = await attestor.attest(peer);
  assert.deepEqual(first, ['a:m']);
  isDown = false;
  clock.jump(4_999);
  assert.equal(attestor.attest(peer), first);
  clock.jump(1);
  const whole = await attestor.attest(peer);
  assert.deepEqual(whole, ['a:m', 'b:m']);
  clock.jump(86_400_000);
  assert.equal(attestor.attest(peer), whole);
});

test('a method that keeps failing is one warning with its cause, whoever calls; another failure is another', async () => {
  const process = { alive: true, mark: 'm' };
  const clock = drivenClock();
  const lines: string[] = [];
  const log = createLog({ level: 'info', format: 'text', clock, write: (line) => lines.push(line) });
  let fault = new Fault('peer/unavailable', 'docker at "/x" cannot be reached');
  const methods = [methodOf('a', process), methodOf('docker', process, () => Promise.reject(fault))];
  const attestor = workloadAttestor(methods, { clock, log });
  for (let call = 0; call < 20; call++) await attestor.attest(peerOf(process));
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /workload attestation failed.*docker at "?.*cannot be reached/);
  fault = new Fault('peer/failed', 'docker answers 500');
  await attestor.attest(peerOf(process));
  assert.equal(lines.length, 2);
  clock.jump(600_000);
  await attestor.attest(peerOf(process));
  assert.equal(lines.length, 3);
  process.alive = false;
  await assert.rejects(async () => attestor.attest(peerOf(process)));
  assert.equal(lines.length, 3);
});
