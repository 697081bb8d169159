/** What /proc says of a process. It says so for whoever has the pid at the moment: the caller checks that it is still the same. */
import { closeSync, openSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs';
import { Fault, quote } from '../../src/errors.ts';

/** Who a process acts as: the effective ids, and its supplementary groups. */
export interface ProcessIds {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** The lines of /proc/<pid>/status that say who the process is, as they stand. Throws `thing/missing`. */
export function identityLines(pid: number): string {
  const status = readStatus(pid);
  // The name comes first and is the process's own to choose; newlines in it are escaped, so a line start is ours.
  const from = status.indexOf('\nUid:');
  const groups = status.indexOf('\nGroups:', from);
  const to = status.indexOf('\n', groups + 1);
  if (from < 0 || groups < 0 || to < 0) throw new Fault('system/failed', `the status of process ${pid} cannot be read`);
  // A text of these lines alone: each call of a workload makes one.
  return status.toString('latin1', from + 1, to);
}

/** Each call looks here, so it is read with three system calls where readFileSync makes five. Good until the next reading. */
function readStatus(pid: number): Buffer {
  try {
    const file = openSync(`/proc/${pid}/status`, 'r');
    try {
      const length = readSync(file, page, 0, page.length, 0);
      if (length < page.length) return page.subarray(0, length);
    } finally {
      closeSync(file);
    }
    // Thousands of groups.
    return readFileSync(`/proc/${pid}/status`);
  } catch (error) {
    throw new Fault('thing/missing', `process ${pid} is gone`, { cause: error });
  }
}
const page = Buffer.alloc(8192);

/** Reads the ids out of such lines: `Uid:` and `Gid:` hold real, effective, saved and file system id. */
export function readIds(lines: string): ProcessIds {
  const numbers = (name: string): number[] => {
    const line = lines.split('\n').find((one) => one.startsWith(`${name}:`));
    const values = (line ?? '')
      .slice(name.length + 1)
      .trim()
      .split(/\s+/)
      .filter((text) => text !== '')
      .map(Number);
    if (line === undefined || values.some((value) => !Number.isSafeInteger(value) || value < 0)) {
      throw new Fault('system/failed', `the ${name} line of a process cannot be read: ${quote(line)}`);
    }
    return values;
  };
  const uid = numbers('Uid')[1];
  const gid = numbers('Gid')[1];
  if (uid === undefined || gid === undefined)
    throw new Fault('system/failed', 'a process has no effective user or group');
  return { uid, gid, groups: numbers('Groups') };
}

/** Which file a process runs, so that another one shows; the same for every file that may not be looked at. */
export function executableMark(pid: number): string {
  try {
    const { dev, ino, size, mtimeMs } = statSync(`/proc/${pid}/exe`);
    return `${dev}:${ino}:${size}:${mtimeMs}`;
  } catch {
    return 'unreadable';
  }
}

/** The path of the program, as the process sees it. Throws `thing/missing`. */
export function executablePath(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch (error) {
    throw new Fault('thing/missing', `the program of process ${pid} cannot be read`, { cause: error });
  }
}
