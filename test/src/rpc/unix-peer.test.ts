/** Who connected to a Unix socket, with real processes: other users, dying ones, recycled pids. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { serveUnix } from '../../../src/rpc/serve.ts';
import { holdProcess, type KernelPorts, linux, peerOf, type UnixPeer } from '../../../src/rpc/unix-peer.ts';

/** A directory that other users may enter too. */
function openDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mutual-'));
  chmodSync(directory, 0o755);
  return directory;
}

// A claim that fails leaves nothing behind that would keep the run from ending.
const children = new Set<ChildProcess>();
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** A socket that hands over the peer of each connection as it is accepted. */
async function listener(kernel: KernelPorts = linux()) {
  const path = join(openDirectory(), 's');
  const accepted: { peer?: UnixPeer; fault?: Fault; socket: Socket }[] = [];
  const sockets = new Set<Socket>();
  const waiting: ((connection: (typeof accepted)[number]) => void)[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    sockets.add(socket);
    const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
    let connection: (typeof accepted)[number];
    try {
      connection = { peer: peerOf(fd, kernel), socket };
    } catch (error) {
      connection = { fault: error as Fault, socket };
    }
    const next = waiting.shift();
    if (next === undefined) accepted.push(connection);
    else next(connection);
  });
  server.listen(path);
  await once(server, 'listening');
  chmodSync(path, 0o777);
  return {
    path,
    next: (): Promise<(typeof accepted)[number]> =>
      new Promise((resolve) => {
        const connection = accepted.shift();
        if (connection === undefined) waiting.push(resolve);
        else resolve(connection);
      }),
    [Symbol.dispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A process that connects and stays. */
function client(path: string, ids: { uid?: number; gid?: number } = {}): ChildProcess {
  const program = `const s = require('node:net').connect(process.argv[1]); s.on('error', () => {}); s.on('close', () => process.exit())`;
  const child = spawn(process.execPath, ['-e', program, path], { ...ids, stdio: 'ignore' });
  children.add(child);
  return child;
}

async function killed(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

test('WE-13 the peer of a connection is the process that opened it', async () => {
  using server = await listener();
  const child = client(server.path);
  const { peer, socket } = await server.next();
  assert.equal(peer?.pid, child.pid);
  assert.deepEqual([peer?.uid, peer?.gid], [process.getuid?.(), process.getgid?.()]);
  assert.equal(peer?.alive(), true);
  peer.close();
  peer.close();
  assert.equal(peer.alive(), false);
  socket.destroy();
  await once(child, 'exit');
});

test('a running process is seen to run while signals rain on the one that asks', async () => {
  // Signals that nobody takes in fill the pipe through which Node hears of them, and the end of a child is lost among them:
  // so they fall on a process that has no children.
  const path = join(openDirectory(), 's');
  const asking = spawn(process.execPath, [join(import.meta.dirname, '../../support/rained-on.ts'), path], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.add(asking);
  const lines = createInterface(asking.stdout)[Symbol.asyncIterator]();
  while (!existsSync(path) && asking.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
  client(path);
  assert.equal((await lines.next()).value, 'ready');
  children.add(spawn('sh', ['-c', `while kill -WINCH ${asking.pid}; do :; done`], { stdio: 'ignore' }));
  assert.equal((await lines.next()).value, '200000 of 200000');
});

test('users on one machine are each seen with their own ids, at the same time', async () => {
  using server = await listener();
  const root = process.getuid?.() === 0;
  const users = root ? [1000, 2000, 0] : [process.getuid?.() as number];
  const group = (uid: number): number => (root ? uid + 5 : (process.getgid?.() as number));
  const visitors = new Map(users.map((uid) => [client(server.path, root ? { uid, gid: group(uid) } : {}).pid, uid]));
  for (const _user of users) {
    const { peer, socket } = await server.next();
    const uid = visitors.get(peer?.pid);
    assert.deepEqual([peer?.uid, peer?.gid], [uid, group(uid as number)]);
    peer?.close();
    socket.destroy();
  }
});

test('a peer that was killed is not alive, whoever has its pid now', async () => {
  using server = await listener();
  const child = client(server.path);
  const { peer, socket } = await server.next();
  assert.equal(peer?.alive(), true);
  await killed(child);
  assert.equal(peer.alive(), false);
  // Where the kernel lets us, the very pid is given to another process.
  let heir: ChildProcess | undefined;
  try {
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(peer.pid - 1));
    heir = spawn('sleep', ['60'], { stdio: 'ignore' });
  } catch {
    // Then the claim stands without an heir.
  }
  assert.equal(peer.alive(), false, `pid ${peer.pid} is now ${heir?.pid === peer.pid ? 'another process' : 'nobody'}`);
  heir?.kill('SIGKILL');
  peer.close();
  socket.destroy();
});

test('a process that connects and dies before it is accepted is refused or not alive', async () => {
  using server = await listener();
  // Nothing is accepted here while the child runs, connects and is reaped.
  const program = `const s = require('node:net').connect(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  const { signal } = spawnSync(process.execPath, ['-e', program, server.path]);
  assert.equal(signal, 'SIGKILL');
  const { peer, fault, socket } = await server.next();
  if (peer === undefined) assert.equal(fault?.code, 'caller/unauthenticated');
  else assert.equal(peer.alive(), false);
  peer?.close();
  socket.destroy();
});

test('a process that hands its connection to a child and dies is not alive, though the connection is', async () => {
  using server = await listener();
  const program = `const s = require('node:net').connect(process.argv[1], () => {
    const child = require('node:child_process').spawn('sleep', ['60'], { stdio: [s, 'ignore', 'ignore'], detached: true });
    console.log(child.pid);
    child.unref();
    process.stdin.on('data', () => process.kill(process.pid, 'SIGKILL'));
  });`;
  const parent = spawn(process.execPath, ['-e', program, server.path], { stdio: ['pipe', 'pipe', 'ignore'] });
  const [line] = await once(parent.stdout, 'data');
  const { peer, socket } = await server.next();
  assert.equal(peer?.pid, parent.pid);
  parent.stdin.write('x');
  await once(parent, 'exit');
  assert.equal(peer?.alive(), false);
  assert.equal(socket.readyState, 'open');
  process.kill(Number(String(line)), 'SIGKILL');
  await once(socket.resume(), 'close');
  peer.close();
});

/** A kernel before 6.5. */
function olderKernel(startTimeOf: KernelPorts['startTimeOf'] = linux().startTimeOf): KernelPorts {
  return {
    startTimeOf,
    getSockOpt: (fd, level, option, value) => (option === 77 ? -92 : linux().getSockOpt(fd, level, option, value)),
  };
}

test('without SO_PEERPIDFD the start time tells: a peer that was killed is not alive', async () => {
  using server = await listener(olderKernel());
  const child = client(server.path);
  const { peer, socket } = await server.next();
  assert.equal(peer?.pid, child.pid);
  assert.equal(peer?.alive(), true);
  await killed(child);
  assert.equal(peer.alive(), false);
  peer.close();
  socket.destroy();
});

test('without SO_PEERPIDFD a pid that was given to a later process is not the peer', async () => {
  let started = '100';
  using server = await listener(olderKernel(() => started));
  const child = client(server.path);
  const { peer, socket } = await server.next();
  assert.equal(peer?.alive(), true);
  started = '101';
  assert.equal(peer.alive(), false);
  started = '100';
  peer.close();
  assert.equal(peer.alive(), false);
  socket.destroy();
  await once(child, 'exit');
});

test('the start time is read past a name that holds spaces and parentheses', async () => {
  const child = spawn('sh', ['-c', `printf ') 1 2 3 (' > /proc/self/comm; exec 3<&-; read line`], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  while (!readFileSync(`/proc/${child.pid}/comm`, 'latin1').startsWith(') 1')) await new Promise(setImmediate);
  const { startTimeOf } = linux();
  assert.match(startTimeOf(child.pid as number) ?? '', /^\d+$/);
  assert.equal(startTimeOf(child.pid as number), startTimeOf(child.pid as number));
  assert.ok(Number(startTimeOf(child.pid as number)) >= Number(startTimeOf(process.pid)));
  await killed(child);
  assert.equal(startTimeOf(child.pid as number), undefined);
});

test('a kernel that does not say who connected is a refusal, and nothing is left open', () => {
  const kernel = (results: Record<number, number>): KernelPorts => ({
    startTimeOf: () => '1',
    getSockOpt: (_fd, _level, option) => results[option] ?? -22,
  });
  const before = descriptors();
  for (const results of [{ 17: -9 }, { 17: 4 }, { 17: 12, 77: -22 }, { 17: 12, 77: -24 }]) {
    assert.throws(
      () => peerOf(3, kernel(results)),
      (error: Fault) => error.code === 'caller/unauthenticated' && /getsockopt/.test(error.detail ?? ''),
    );
  }
  assert.throws(() => peerOf(-1), Fault);
  assert.equal(descriptors(), before);
});

/** Connects and leaves: at once, after a preface of HTTP/2, or in the middle of one. Whether it got through at all. */
function visit(path: string, kind: number): Promise<boolean> {
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', 'latin1');
  return new Promise((resolve) => {
    let connected = false;
    const socket = connect(path);
    socket.on('error', () => {});
    socket.once('close', () => resolve(connected));
    socket.once('connect', () => {
      connected = true;
      if (kind % 3 === 0) socket.destroy();
      else socket.write(kind % 3 === 1 ? preface : preface.subarray(0, 10), () => socket.destroy());
    });
  });
}

test('SPI-01-006 ten thousand callers that die, some of them killed, leave no descriptor behind', async (t) => {
  const path = join(openDirectory(), 's');
  let taken = 0;
  const counting: KernelPorts = {
    ...linux(),
    getSockOpt(fd, level, option, value) {
      if (option === 17) taken += 1;
      return linux().getSockOpt(fd, level, option, value);
    },
  };
  const services = [{ name: 'SpiffeWorkloadAPI', methods: {} }];
  const serving = await serveUnix({ path, mode: 0o777, services, kernel: counting });
  t.after(() => serving.close(0));
  const before = descriptors();
  for (let visited = 0; visited < 10_000; ) {
    const batch = await Promise.all(Array.from({ length: 100 }, (_, i) => visit(path, i)));
    visited += batch.filter(Boolean).length;
    // Both ends share one thread here: let the server accept before the next hundred come.
    while (taken < visited) await new Promise(setImmediate);
  }
  const killedOnes = Array.from({ length: 12 }, () => client(path));
  while (taken < 10_000 + killedOnes.length) await new Promise((resolve) => setTimeout(resolve, 5));
  await Promise.all(killedOnes.map(killed));
  for (let turns = 0; turns < 10_000 && descriptors() > before; turns++)
    await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(descriptors() <= before, `${descriptors() - before} descriptors are still open`);
});

const missing = (fault: Fault) => fault.code === 'thing/missing' && /there is no process \d+/.test(fault.message);

test('a process named by its pid is held: it stays the one it was until it ends, and a dead one is not found', async () => {
  const child = spawn('sleep', ['600']);
  children.add(child);
  await once(child, 'spawn');
  const pid = child.pid as number;
  const held = holdProcess(pid);
  assert.deepEqual([held.pid, held.alive()], [pid, true]);
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  assert.equal(held.alive(), false);
  held.close();
  held.close();
  assert.throws(() => holdProcess(pid), missing);
});

test('where pidfd_open is not to be had, the start time tells two processes with one pid apart', () => {
  const started = ['100', '100', '100', '200'];
  for (const errno of [38, 1]) {
    const times = [...started];
    const held = holdProcess(
      4242,
      () => -errno,
      () => times.shift(),
    );
    assert.equal(held.alive(), true);
    assert.equal(held.alive(), false);
  }
  for (const errno of [38, 1, 3, 22])
    assert.throws(
      () =>
        holdProcess(
          4242,
          () => -errno,
          () => undefined,
        ),
      missing,
    );
});
