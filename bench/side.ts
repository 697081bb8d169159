/** One of the two pairs that are compared: a server, an agent attested to it, and one identity for the load generator. */
import { chmodSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  type Agent,
  createEntry,
  joinToken,
  type Server,
  startAgent,
  startServer,
  workload,
  writeBundle,
} from '../test/peers/support/pair.ts';
import type { Place } from '../test/peers/support/place.ts';
import { type Event, type Program, runOk } from '../test/peers/support/program.ts';
import { until } from '../test/peers/support/until.ts';
import { peerPath } from '../tools/peers.ts';
import type { Make } from './result.ts';

export interface Side {
  readonly make: Make;
  readonly server: Server;
  readonly agent: Agent;
  /** Runs a verb of the load generator with the sockets of this side and gives what it reports. Throws when it fails. */
  load(verb: string, ...flags: string[]): Promise<Event>;
  /**
   * Lets `count` processes open a stream of FetchX509SVID at once and hold it; the first is of user `firstUser`, the
   * second of the next. They go with `end`.
   */
  hold(count: number, firstUser: number): Promise<{ readonly opened: Event; end(): Promise<unknown> }>;
  /** Time from before `launch` until the waiting load generator has its answer, in ms. */
  timeTo(verb: 'first' | 'answer', launch: () => Promise<void>): Promise<number>;
}

/** The node alias under which entries are made. */
export const alias = 'spiffe://example.org/node';
/** What the load generator is known by. */
export const callerSelector = `unix:uid:${process.getuid!()}`;

/**
 * Starts a pair as its users would, and waits until the load generator has an identity of it. `command` is the file of the
 * `mutual` command, `config` more of our server's configuration.
 */
export async function startSide(
  make: Make,
  place: Place,
  command: string,
  config: Readonly<Record<string, unknown>> = {},
): Promise<Side> {
  const server = await startServer(make, place, `${make}-server`, {
    defaults: true,
    logLevel: 'INFO',
    command,
    config,
  });
  const joined = { joinToken: await joinToken(server, alias), bundle: await writeBundle(server) };
  await createEntry(server, 'spiffe://example.org/bench', alias, [callerSelector]);
  const agent = await startAgent(make, place, `${make}-agent`, server, {
    defaults: true,
    logLevel: 'INFO',
    command,
    ...joined,
  });
  await until(`the ${make} pair serves`, 60_000, () => workload(agent, 'x509'), 250);
  const sockets = ['-socket', agent.socket, '-admin', server.adminSocket, '-server', `127.0.0.1:${server.port}`];
  const load = peerPath('peer-load');
  return {
    make,
    server,
    agent,
    async load(verb, ...flags) {
      const stdout = await runOk(load, [verb, ...sockets, ...flags], { deadlineMs: 600_000 });
      return JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
    },
    async hold(count, firstUser) {
      // Other users have to come as far as the socket.
      for (let at = dirname(agent.socket); at.startsWith(place.dir); at = dirname(at)) chmodSync(at, 0o711);
      const script = join(import.meta.dirname, '../test/peers/py/hold.py');
      const holder = await place.start('hold', 'python3', [script, agent.socket, String(count), String(firstUser)]);
      const opened = await holder.event('held', () => true, 600_000);
      return { opened, end: () => holder.stop() };
    },
    async timeTo(verb, launch) {
      const waiting = await place.start('load', load, [verb, ...sockets]);
      await waiting.event('waiting');
      const before = performance.timeOrigin + performance.now();
      await launch();
      const { at } = await waiting.event('first');
      return at - before;
    },
  };
}

/** Resident and private memory of a process in MB. */
export function memoryOf(program: Program): [resident: number, privately: number] {
  const status = readFileSync(`/proc/${program.pid}/status`, 'utf8');
  const read = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  return [read('VmRSS'), read('RssAnon')];
}

/** CPU time that a process has used so far, all threads, in microseconds. */
export function cpuOf(program: Program): number {
  const stat = readFileSync(`/proc/${program.pid}/stat`, 'utf8');
  // Fields 14 and 15, counted from the end of the name, in ticks: a hundredth of a second on every Linux.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}
