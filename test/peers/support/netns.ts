/** A network namespace with one link to ours, on which packets can be made to vanish: no end hears of it. Needs root. */
import { runOk } from './program.ts';

export interface Netns {
  /** The address of its end of the link. */
  readonly address: string;
  /** The address of our end, by which what is in it reaches us. */
  readonly near: string;
  /** What to put in front of a command, so that it runs there. */
  readonly prefix: readonly string[];
  /** From now on packets go nowhere, in both directions: no reset, no unreachable, no link that is down. */
  cut(): Promise<void>;
  mend(): Promise<void>;
  /** Removes it. Programs that still run there keep it alive until they end. */
  close(): Promise<void>;
}

/** A hardware address that nobody has. */
const nobody = '02:00:00:00:00:01';

/** Makes one; one at a time in a process. */
export async function makeNetns(): Promise<Netns> {
  const name = `mutual${process.pid}`;
  const [ours, theirs] = [`mua${process.pid}`, `mub${process.pid}`];
  // Link-local, so that no route of the machine is in the way.
  const subnet = `169.254.${1 + (process.pid % 250)}`;
  const [near, far] = [`${subnet}.1`, `${subnet}.2`];
  const ip = async (...args: string[]): Promise<void> => void (await runOk('ip', args));
  const there = (...args: string[]) => ip('-n', name, ...args);
  await ip('netns', 'add', name);
  await ip('link', 'add', ours, 'type', 'veth', 'peer', 'name', theirs, 'netns', name);
  await ip('addr', 'add', `${near}/30`, 'dev', ours);
  await ip('link', 'set', ours, 'up');
  await there('addr', 'add', `${far}/30`, 'dev', theirs);
  await there('link', 'set', theirs, 'up');
  await there('link', 'set', 'lo', 'up');
  return {
    address: far,
    near,
    prefix: ['ip', 'netns', 'exec', name],
    // Each end goes on sending, to a neighbour who is not there.
    async cut() {
      await ip('neigh', 'replace', far, 'lladdr', nobody, 'dev', ours, 'nud', 'permanent');
      await there('neigh', 'replace', near, 'lladdr', nobody, 'dev', theirs, 'nud', 'permanent');
    },
    async mend() {
      await ip('neigh', 'del', far, 'dev', ours);
      await there('neigh', 'del', near, 'dev', theirs);
    },
    async close() {
      await ip('netns', 'del', name);
      // With programs still in it the namespace stays; our end of the link must not.
      await ip('link', 'del', ours).catch(() => {});
    },
  };
}
