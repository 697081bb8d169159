/**
 * npm run bench -- --scale: what a server on PostgreSQL costs with thousands of agents (bench/agents): at rest, for one
 * change of an entry among many, and when all agents are cut off and come back in the same moment, three times. Ours
 * alone: the agents speak mutual.server.v1.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock as clock, sleep } from '../src/run/clock.ts';
import { startServer } from '../test/peers/support/cluster.ts';
import type { Place } from '../test/peers/support/place.ts';
import { startPostgres } from '../test/peers/support/postgres.ts';
import { adminOf } from './agents/fleet.ts';

/** An agent takes three open files of the program that simulates it, of which a program may often have 20,000. */
const agentsEach = 2_500;
const storms = 3;
/** Milliseconds for which a server at rest is watched. */
const watched = 20_000;
const changes = 200;
/** Milliseconds after which a server has given back what a storm left. */
const settled = 20_000;
/** Milliseconds for so many agents to do something, on a machine that has other work too. */
const patience = (agents: number): number => 600_000 + agents * 120;

/** One line of what was found. */
export type Finding = readonly [what: string, figure: string];

interface Simulator {
  readonly process: ChildProcess;
  /** The next event of this name. Throws when the program ends instead, or after `ms`. */
  // biome-ignore lint/suspicious/noExplicitAny: each event has fields of its own
  event(name: string, ms: number): Promise<Record<string, any>>;
}

/** Runs it all, saying each finding when it is there. */
export async function simulations(place: Place, agents: number, say: (finding: Finding) => void): Promise<void> {
  const postgres = await startPostgres(place);
  const database = await postgres.database();
  const server = await startServer(place, 'scale', database);
  const { pid } = server.program();
  const reads = async (): Promise<number> =>
    Number(
      (
        await postgres.query(
          `select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()`,
          database,
        )
      ).rows[0].n,
    );
  const simulators: Simulator[] = [];
  try {
    const began = performance.now();
    for (let left = agents; left > 0; left -= agentsEach)
      simulators.push(startSimulator(server.port, server.adminSocket, pid, Math.min(left, agentsEach)));
    await Promise.all(simulators.map((one) => one.event('started', patience(agents))));
    const seconds = (performance.now() - began) / 1000;
    say([`${agents} agents attest and synchronise`, `${seconds.toFixed(0)} s, ${megabytes(pid)}`]);

    await sleep(clock, 5_000);
    const [cpu, read] = [cpuOf(pid), await reads()];
    await sleep(clock, watched);
    const share = ((cpuOf(pid) - cpu) / watched) * 100;
    // The question itself is one.
    const perSecond = ((await reads()) - read - 1) / (watched / 1000);
    say([
      `${agents} agents at rest`,
      `${share.toFixed(2)} % of a core, ${perSecond.toFixed(1)} database transactions a second, ${megabytes(pid)}`,
    ]);

    for (let storm = 1; storm <= storms; storm += 1) {
      const before = cpuOf(pid);
      const person = askNowAndThen(server.adminSocket);
      for (const { process } of simulators) process.stdin!.write('storm\n');
      const back = await Promise.all(simulators.map((one) => one.event('storm', patience(agents))));
      const seconds = (of: (event: Awaited<(typeof back)[number]>) => unknown): string =>
        (Math.max(...back.map((event) => Number(of(event)))) / 1000).toFixed(1);
      const most = Math.max(...back.map(({ most }) => Number(most.privateMb)));
      const each = (cpuOf(pid) - before) / agents;
      const waited = await person.end();
      await sleep(clock, settled);
      say([
        `storm ${storm}: ${agents} agents cut off for 2 s come back at once`,
        `half level after ${seconds(({ half }) => half)} s, all after ${seconds(({ ms }) => ms)} s, ${each.toFixed(1)} ms of CPU each, ` +
          `${most} MB private at most, ${megabytes(pid)} ${settled / 1000} s later; an administrator's call took ${waited} at most`,
      ]);
    }

    let made = agents;
    for (const entries of [1_000, 10_000, 100_000]) {
      if (entries < made) continue;
      const admin = adminOf(server.adminSocket);
      for (; made < entries; made += 100)
        await admin.createEntries(`spiffe://example.org/scale/${made}`, paths('/scale/entry', made, 100));
      const before = cpuOf(pid);
      const start = performance.now();
      for (let i = 0; i < changes; i += 1)
        await admin.createEntries('spiffe://example.org/scale/one', [`/scale/change/${entries}/${i}`]);
      const each = (cpuOf(pid) - before) / changes;
      const took = (performance.now() - start) / changes;
      admin.close();
      say([
        `one entry created, ${entries} entries, ${agents} agents`,
        `${each.toFixed(2)} ms of CPU, ${took.toFixed(1)} ms, ${megabytes(pid)}`,
      ]);
    }
    for (const { process } of simulators) process.stdin!.write('end\n');
    const ends = await Promise.all(simulators.map((one) => one.event('end', 120_000)));
    const wrong = ends.reduce((sum, one) => sum + Number(one.wrong), 0);
    say(['gaps and doubles in what the agents applied', String(wrong)]);
  } finally {
    for (const { process } of simulators) process.kill('SIGKILL');
  }
}

/** Calls the admin socket ten times a second, as one person would once; gives the longest that an answer took. */
function askNowAndThen(adminSocket: string): { end(): Promise<string> } {
  const admin = adminOf(adminSocket);
  let isOver = false;
  let longest = 0;
  const asking = (async () => {
    while (!isOver) {
      const start = performance.now();
      await admin.joinToken();
      longest = Math.max(longest, performance.now() - start);
      await sleep(clock, 100);
    }
  })();
  return {
    async end() {
      isOver = true;
      await asking;
      admin.close();
      return `${longest.toFixed(0)} ms`;
    },
  };
}

const paths = (prefix: string, from: number, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}/${from + i}`);

function startSimulator(port: number, adminSocket: string, pid: number, agents: number): Simulator {
  const flags = ['--server', `127.0.0.1:${port}`, '--admin-socket', adminSocket, '--pid', String(pid)];
  const size = ['--agents', String(agents), '--entries-each', '1', '--changes', '0', '--storm', String(storms)];
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, 'agents/main.ts'), ...flags, ...size, '--on-input'],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    process: child,
    async event(name, ms) {
      const late = AbortSignal.timeout(ms);
      const over = new Promise<never>((_, reject) =>
        late.addEventListener('abort', () => reject(new Error(`no "${name}" from a simulator in ${ms / 1000} s`))),
      );
      for (;;) {
        const { value, done } = await Promise.race([lines.next(), over]);
        if (done) throw new Error(`a simulator ended before "${name}"`);
        const event = JSON.parse(value);
        if (event.event === name && (name !== 'storm' || event.part === 1)) return event;
      }
    },
  };
}

/** Milliseconds of CPU that a process has used, by /proc. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  // In hundredths of a second.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function megabytes(pid: number): string {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return `${Math.round(Number(/RssAnon:\s+(\d+)/.exec(status)![1]) / 1024)} MB private`;
}
