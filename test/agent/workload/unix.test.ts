import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { accounts } from '../../../agent/workload/accounts.ts';
import { fileHashes } from '../../../agent/workload/file-hash.ts';
import { identityLines, readIds } from '../../../agent/workload/process.ts';
import { unixMethod } from '../../../agent/workload/unix.ts';
import type { Fault } from '../../../src/errors.ts';
import { workloadAttestorSuite } from '../../suites/workload-attestor.ts';
import { drivenClock } from '../../support/clock.ts';

const signal = new AbortController().signal;
const isRoot = process.getuid?.() === 0;
let directory = '';
let program = '';
const children: ChildProcess[] = [];

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'mu-'));
  // Other users run what is in it.
  chmodSync(directory, 0o755);
  program = join(directory, 'sleeper');
  copyFileSync(realpathSync('/bin/sleep'), program);
});
after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

/** A process that runs our own program, as another user where this test may do that. */
async function sleeper(ids: { uid?: number; gid?: number } = {}): Promise<number> {
  const child = spawn(program, ['1000'], { stdio: 'ignore', ...ids });
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  return child.pid!;
}

const names = (): ReturnType<typeof accounts> => {
  const users = join(directory, 'passwd');
  const groups = join(directory, 'group');
  writeFileSync(
    users,
    `root:x:0:0::/:/bin/sh\n# comment\nme:x:${process.getuid?.()}:1::/:/bin/sh\nworker:x:4321:4321::/:/bin/sh\n+nis\n`,
  );
  writeFileSync(groups, `root:x:0:\nstaff:x:4321:me\n`);
  return accounts(drivenClock(), { users, groups });
};

test('uid, user, gid and group are those of the process', async () => {
  const ids = isRoot ? { uid: 4321, gid: 4321 } : {};
  const pid = await sleeper(ids);
  const found = await unixMethod({ discoverWorkloadPath: false, workloadSizeLimit: 0 }, drivenClock(), names()).attest(
    pid,
    signal,
  );
  const { uid, gid } = readIds(identityLines(pid));
  assert.equal(uid, ids.uid ?? process.getuid?.());
  assert.ok(found.includes(`unix:uid:${uid}` as never) && found.includes(`unix:gid:${gid}` as never));
  if (isRoot) {
    assert.ok(found.includes('unix:user:worker' as never) && found.includes('unix:group:staff' as never));
  } else assert.ok(found.includes('unix:user:me' as never));
  assert.ok(!found.some((selector) => selector.startsWith('unix:path:') || selector.startsWith('unix:sha256:')));
});

test('path and sha256 are those of the running program, when asked to look', async () => {
  const pid = await sleeper();
  const found = await unixMethod({ discoverWorkloadPath: true, workloadSizeLimit: 0 }, drivenClock(), names()).attest(
    pid,
    signal,
  );
  const digest = createHash('sha256').update(readFileSync(program)).digest('hex');
  assert.ok(found.includes(`unix:path:${program}` as never));
  assert.ok(found.includes(`unix:sha256:${digest}` as never));
});

test('a size limit below 0 hashes nothing, and a program over the limit is not attested', async () => {
  const pid = await sleeper();
  const none = await unixMethod({ discoverWorkloadPath: true, workloadSizeLimit: -1 }, drivenClock(), names()).attest(
    pid,
    signal,
  );
  assert.ok(
    none.some((selector) => selector.startsWith('unix:path:')) &&
      !none.some((selector) => selector.startsWith('unix:sha256:')),
  );
  await assert.rejects(
    unixMethod({ discoverWorkloadPath: true, workloadSizeLimit: 10 }, drivenClock(), names()).attest(pid, signal),
    (fault: Fault) => /more than the limit of 10/.test(fault.message),
  );
});

test('a process that is gone cannot be attested', async () => {
  const method = unixMethod({ discoverWorkloadPath: false, workloadSizeLimit: 0 }, drivenClock(), names());
  await assert.rejects(method.attest(2 ** 30, signal), (fault: Fault) => fault.code === 'thing/missing');
  assert.throws(() => method.fingerprint(2 ** 30));
});

test('effective ids count, not real ones, and every supplementary group', () => {
  const lines = 'Uid:\t1000\t2000\t3000\t4000\nGid:\t10\t20\t30\t40\nFDSize:\t64\nGroups:\t7 8 9 ';
  assert.deepEqual(readIds(lines), { uid: 2000, gid: 20, groups: [7, 8, 9] });
  assert.deepEqual(readIds('Uid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nGroups:\t'), { uid: 2, gid: 2, groups: [] });
});

for (const [name, lines] of [
  ['no Uid', 'Gid:\t1\t2\t3\t4\nGroups:\t'],
  ['a Uid that is no number', 'Uid:\tx\ty\nGid:\t1\t2\nGroups:\t'],
  ['one Uid alone', 'Uid:\t1\nGid:\t1\t2\nGroups:\t'],
  ['a negative group', 'Uid:\t1\t2\nGid:\t1\t2\nGroups:\t-1'],
] as const) {
  test(`a status with ${name} is refused`, () => {
    assert.throws(
      () => readIds(lines),
      (fault: Fault) => fault.code === 'system/failed',
    );
  });
}

test('a program named like a status line does not become another user', async () => {
  const evil = join(directory, 'Uid:\t0\t0\t0\t0');
  copyFileSync(realpathSync('/bin/sleep'), evil);
  const child = spawn(evil, ['1000'], { stdio: 'ignore', ...(isRoot ? { uid: 4321, gid: 4321 } : {}) });
  children.push(child);
  await new Promise((resolve) => child.once('spawn', resolve));
  assert.equal(readIds(identityLines(child.pid!)).uid, isRoot ? 4321 : process.getuid?.());
});

test('names are read again when the files change, looked at once a second', () => {
  const clock = drivenClock();
  const users = join(directory, 'passwd2');
  const groups = join(directory, 'group2');
  writeFileSync(users, 'one:x:5:5::/:\ntwo:x:5:5::/:\n');
  writeFileSync(groups, 'g:x:5:\n');
  const found = accounts(clock, { users, groups });
  assert.equal(found.userName(5), 'one');
  assert.equal(found.groupName(5), 'g');
  const version = found.version();
  writeFileSync(users, 'renamed:x:5:5::/:\n');
  utimesSync(users, 1, 1);
  assert.equal(found.userName(5), 'one');
  clock.jump(1_001);
  assert.equal(found.userName(5), 'renamed');
  assert.notEqual(found.version(), version);
  rmSync(users);
  clock.jump(1_001);
  assert.equal(found.userName(5), undefined);
});

test('a hash is computed once for each state of a file', async () => {
  const path = join(directory, 'file');
  writeFileSync(path, 'one');
  const hashes = fileHashes();
  const digest = (text: string) => createHash('sha256').update(text).digest('hex');
  assert.equal(await hashes.sha256(path, 0, signal), digest('one'));
  assert.equal(await hashes.sha256(path, 0, signal), digest('one'));
  writeFileSync(path, 'another');
  assert.equal(await hashes.sha256(path, 0, signal), digest('another'));
  await assert.rejects(hashes.sha256(path, 3, signal), (fault: Fault) => fault.code === 'limit/exceeded');
});

test('the fingerprint changes with the program and with the names, and not by itself', async () => {
  const pid = await sleeper();
  const method = unixMethod({ discoverWorkloadPath: true, workloadSizeLimit: 0 }, drivenClock(), names());
  assert.equal(method.fingerprint(pid), method.fingerprint(pid));
  assert.notEqual(method.fingerprint(pid), method.fingerprint(process.pid));
});

workloadAttestorSuite('unix', async () => {
  const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
  children.push(child);
  await new Promise((resolve) => child.once('spawn', resolve));
  const { uid, gid, groups } = readIds(identityLines(child.pid!));
  const method = unixMethod(
    { discoverWorkloadPath: false, workloadSizeLimit: 0 },
    drivenClock(),
    accounts(drivenClock(), { users: '/nowhere', groups: '/nowhere' }),
  );
  return {
    method,
    workload: child.pid!,
    selectors: [`unix:uid:${uid}`, `unix:gid:${gid}`, ...groups.map((group) => `unix:supplementary_gid:${group}`)],
    async end() {
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('exit', resolve));
    },
    close: () => void child.kill('SIGKILL'),
  };
});
