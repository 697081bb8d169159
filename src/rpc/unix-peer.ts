/**
 * The process at the other end of a Unix socket, as the kernel saw it connect.
 *
 * A pid alone is no identity: the process may die and its number be given to another before anything is read about it
 * (a fork and exec race). So a peer also holds a pidfd, which keeps naming the same process for ever: take the peer at
 * accept, read /proc/<pid>, then ask alive(). Only if it says true was what was read about that process.
 */
import { closeSync, readFileSync } from 'node:fs';
import { Fault } from '../errors.ts';
import { cLibrary } from '../run/c-library.ts';

/** A process, held so that its number cannot come to mean another one unnoticed. */
export interface HeldProcess {
  /** As this process sees it; 0 when it lives in a pid namespace that is not visible from here. */
  readonly pid: number;
  /** Whether the process still exists, so that its pid still means it. False after close(). */
  alive(): boolean;
  /** Gives the descriptor back. May be called more than once. */
  close(): void;
}

export interface UnixPeer extends HeldProcess {
  readonly uid: number;
  readonly gid: number;
}

/** getsockopt(2): fills `value` and returns its length, or the negative errno. */
export type GetSockOpt = (fd: number, level: number, option: number, value: Buffer) => number;

export interface KernelPorts {
  readonly getSockOpt: GetSockOpt;
  /** When a process started, in clock ticks since boot; undefined when there is no such process. */
  readonly startTimeOf: (pid: number) => string | undefined;
}

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
const EPERM = 1;
const EINTR = 4;
const EINVAL = 22;
const ENOSYS = 38;
const ENOPROTOOPT = 92;
/** The number of pidfd_open(2), which is the same on every architecture; C libraries know it by name only lately. */
const pidfdOpenCall = 434;

/**
 * Identifies the peer of a connected Unix socket by its descriptor. Throws `caller/unauthenticated` when the kernel
 * does not say who it is or the process is gone already.
 */
export function peerOf(fd: number, kernel: KernelPorts = linux()): UnixPeer {
  const credentials = Buffer.alloc(12);
  const length = kernel.getSockOpt(fd, SOL_SOCKET, SO_PEERCRED, credentials);
  if (length !== 12) throw unidentified('SO_PEERCRED', length);
  const [pid, uid, gid] = [credentials.readInt32LE(0), credentials.readUInt32LE(4), credentials.readUInt32LE(8)];

  const descriptor = Buffer.alloc(4);
  const got = kernel.getSockOpt(fd, SOL_SOCKET, SO_PEERPIDFD, descriptor);
  if (got === 4) return pidfdPeer({ uid, gid, pid }, descriptor.readInt32LE(0));
  // Linux before 6.5 does not know the option. Then the start time has to tell two processes with one pid apart: nearly
  // as good, but a pid recycled between connect and accept goes unnoticed.
  if (got === -ENOPROTOOPT) return startTimePeer({ uid, gid, pid }, kernel.startTimeOf);
  throw unidentified('SO_PEERPIDFD', got);
}

/** pidfd_open(2): a descriptor of the process, or the negative errno. */
export type PidfdOpen = (pid: number) => number;

/**
 * Holds a process that somebody else named by its pid. From here on it cannot be mistaken; whether the number meant it
 * when it was written down only its author can know. Throws `thing/missing` when there is no such process.
 */
export function holdProcess(
  pid: number,
  open: PidfdOpen = pidfdOpen(),
  startTime: KernelPorts['startTimeOf'] = startTimeOf,
): HeldProcess {
  const pidfd = open(pid);
  if (pidfd >= 0) return pidfdPeer({ pid }, pidfd);
  // Linux before 5.3, or a sandbox that forbids the call.
  if (pidfd === -ENOSYS || pidfd === -EPERM) {
    const held = startTimePeer({ pid }, startTime);
    if (held.alive()) return held;
  }
  throw new Fault('thing/missing', `there is no process ${pid}`, { detail: `pidfd_open gave ${pidfd}` });
}

function pidfdPeer<Who extends { pid: number }>(who: Who, pidfd: number): Who & HeldProcess {
  let open = true;
  return {
    ...who,
    alive: () => open && !hasEnded(pidfd),
    close() {
      if (!open) return;
      open = false;
      closeSync(pidfd);
    },
  };
}

/**
 * Whether the process of a pidfd has ended, reaped or not: then it is readable. Each call of a workload asks this twice;
 * poll(2) answers in 1 us where reading /proc/self/fdinfo takes 15. What is not plainly running has ended.
 */
function hasEnded(pidfd: number): boolean {
  polled.writeInt32LE(pidfd, 0);
  const { poll, errno } = libc();
  // A signal to this process interrupts even a poll that does not wait.
  for (;;) {
    const ready = poll(polled, 1, 0);
    if (ready >= 0 || errno() !== EINTR) return ready !== 0;
  }
}
/** struct pollfd: the descriptor, POLLIN asked for, and what poll answers. */
const polled = Buffer.from([0, 0, 0, 0, 1, 0, 0, 0]);

function startTimePeer<Who extends { pid: number }>(
  who: Who,
  startTimeOf: KernelPorts['startTimeOf'],
): Who & HeldProcess {
  const started = startTimeOf(who.pid);
  let open = true;
  return {
    ...who,
    alive: () => open && started !== undefined && startTimeOf(who.pid) === started,
    close() {
      open = false;
    },
  };
}

/** Field 22 of /proc/<pid>/stat. The name in field 2 may hold spaces and parentheses: count from its end. */
function startTimeOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

function unidentified(option: string, result: number): Fault {
  return new Fault('caller/unauthenticated', 'the calling process could not be identified', {
    detail: `getsockopt ${option} gave ${result}${result === -EINVAL ? ': the process was gone before it was accepted' : ''}`,
  });
}

let kernel: KernelPorts | undefined;

/** The running kernel. The library is loaded with the first connection: a program without sockets does not need it. */
export function linux(): KernelPorts {
  kernel ??= { getSockOpt: libcGetSockOpt(), startTimeOf };
  return kernel;
}

interface Libc {
  getsockopt(fd: number, level: number, name: number, value: Buffer, length: [number]): number;
  poll(descriptors: Buffer, count: number, timeoutMs: number): number;
  syscall(number: number, pid: number, flags: number): number;
  errno(): number;
}
let loaded: Libc | undefined;

function libc(): Libc {
  if (loaded === undefined) {
    const { library, errno } = cLibrary();
    loaded = {
      getsockopt: library.func('int getsockopt(int fd, int level, int name, void *value, _Inout_ uint32_t *length)'),
      poll: library.func('int poll(void *descriptors, unsigned long count, int timeout)'),
      syscall: library.func('long syscall(long number, long pid, long flags)'),
      errno,
    };
  }
  return loaded;
}

function libcGetSockOpt(): GetSockOpt {
  const { getsockopt, errno } = libc();
  const length: [number] = [0];
  return (fd, level, option, value) => {
    length[0] = value.length;
    return getsockopt(fd, level, option, value, length) === 0 ? length[0] : -errno();
  };
}

function pidfdOpen(): PidfdOpen {
  const { syscall, errno } = libc();
  return (pid) => {
    const pidfd = Number(syscall(pidfdOpenCall, pid, 0));
    return pidfd >= 0 ? pidfd : -errno();
  };
}
