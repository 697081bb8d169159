/** Names of users and groups, from /etc/passwd and /etc/group, read again when those change. */
import { readFileSync, statSync } from 'node:fs';
import type { Clock } from '../../src/run/clock.ts';

export interface Accounts {
  userName(uid: number): string | undefined;
  groupName(gid: number): string | undefined;
  /** Changes when a name may have changed. Looked at once a second. */
  version(): string;
}

/** Milliseconds for which the files are taken to be as they were. */
const lookEvery = 1_000;

/** @param paths the files; others only in tests */
export function accounts(clock: Clock, paths = { users: '/etc/passwd', groups: '/etc/group' }): Accounts {
  const users = names(clock, paths.users);
  const groups = names(clock, paths.groups);
  return {
    userName: (uid) => users.of(uid),
    groupName: (gid) => groups.of(gid),
    version: () => `${users.version()} ${groups.version()}`,
  };
}

function names(clock: Clock, path: string): { of(id: number): string | undefined; version(): string } {
  let looked = Number.NEGATIVE_INFINITY;
  let mark = '';
  let table = new Map<number, string>();
  const look = (): void => {
    if (clock.now() - looked < lookEvery && clock.now() >= looked) return;
    looked = clock.now();
    try {
      const { mtimeMs, size, ino } = statSync(path);
      const now = `${ino}:${size}:${mtimeMs}`;
      if (now === mark) return;
      table = parse(readFileSync(path, 'utf8'));
      mark = now;
    } catch {
      // No such file: nobody has a name, which is what selectors then say.
      table = new Map();
      mark = 'none';
    }
  };
  return {
    of(id) {
      look();
      return table.get(id);
    },
    version() {
      look();
      return mark;
    },
  };
}

/** `name:password:id:...` in both files; the first line for an id counts, as it does for getpwuid. */
function parse(text: string): Map<number, string> {
  const table = new Map<number, string>();
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':');
    if (name === undefined || name === '' || name.startsWith('#') || id === undefined || !/^\d+$/.test(id)) continue;
    if (!table.has(Number(id))) table.set(Number(id), name);
  }
  return table;
}
