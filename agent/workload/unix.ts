/**
 * `unix`: what the kernel knows of the process. Selectors `uid`, `user`, `gid`, `group`, `supplementary_gid`,
 * `supplementary_group` from its effective ids; and, when asked to look, `path` and `sha256` of its program.
 */
import type { Clock } from '../../src/run/clock.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type Accounts, accounts } from './accounts.ts';
import { type FileHashes, fileHashes } from './file-hash.ts';
import type { WorkloadMethod } from './methods.ts';
import { executableMark, executablePath, identityLines, readIds } from './process.ts';

export interface UnixOptions {
  readonly discoverWorkloadPath: boolean;
  /** Bytes; 0 for no limit, below 0 for no hash at all. */
  readonly workloadSizeLimit: number;
}

/** Milliseconds: hashing a large program from a slow disk. */
const deadline = 10_000;

export function unixMethod(
  options: UnixOptions,
  clock: Clock,
  names: Accounts = accounts(clock),
  hashes: FileHashes = fileHashes(),
): WorkloadMethod {
  const fingerprint = (pid: number): string =>
    `${identityLines(pid)}|${names.version()}|${options.discoverWorkloadPath ? executableMark(pid) : ''}`;
  return {
    name: 'unix',
    deadline,
    fingerprint,
    async attest(pid, signal) {
      const selectors = idSelectors(identityLines(pid), names);
      if (options.discoverWorkloadPath) {
        selectors.push(makeSelector('unix', `path:${executablePath(pid)}`));
        if (options.workloadSizeLimit >= 0) {
          const digest = await hashes.sha256(`/proc/${pid}/exe`, options.workloadSizeLimit, signal);
          selectors.push(makeSelector('unix', `sha256:${digest}`));
        }
      }
      return selectors;
    },
  };
}

function idSelectors(lines: string, names: Accounts): Selector[] {
  const { uid, gid, groups } = readIds(lines);
  const found = [`uid:${uid}`, `gid:${gid}`];
  const named = (kind: string, name: string | undefined): void => {
    if (name !== undefined) found.push(`${kind}:${name}`);
  };
  named('user', names.userName(uid));
  named('group', names.groupName(gid));
  for (const group of groups) {
    found.push(`supplementary_gid:${group}`);
    named('supplementary_group', names.groupName(group));
  }
  return found.map((value) => makeSelector('unix', value));
}
