/**
 * A fleet of simulated agents against a server, for sizing: `node bench/agents/main.ts --server HOST:PORT --admin-socket
 * PATH --agents N`. Prints one line of JSON an event. With --storm every connection is cut at once (the agents go through
 * a forwarder of this process) and the time until all are back and level is printed, as often as asked.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { NodeRecord } from '../../agent/state.ts';
import { createLog } from '../../src/log.ts';
import { sleep, systemClock } from '../../src/run/clock.ts';
import { systemRandom } from '../../src/run/random.ts';
import { adminOf, startFleet } from './fleet.ts';
import { startForwarder } from './forwarder.ts';

const { values } = parseArgs({
  options: {
    server: { type: 'string', default: '127.0.0.1:8081' },
    'admin-socket': { type: 'string', default: '.mutual/server/private/api.sock' },
    agents: { type: 'string', default: '100' },
    'entries-each': { type: 'string', default: '5' },
    svids: { type: 'boolean', default: false },
    'at-once': { type: 'string', default: '32' },
    identities: { type: 'string' },
    changes: { type: 'string', default: '20' },
    storm: { type: 'string', default: '0' },
    'on-input': { type: 'boolean', default: false },
    away: { type: 'string', default: '2' },
    pid: { type: 'string' },
    stay: { type: 'string', default: '0' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(`Usage: node bench/agents/main.ts [flags]
  --server HOST:PORT      the server (127.0.0.1:8081)
  --admin-socket PATH     its admin socket, for join tokens and entries
  --agents N              how many agents (100); several of these programs make more
  --entries-each N        entries made for each agent (5)
  --svids                 fetch and renew an X509-SVID for every entry
  --at-once N             agents that attest at the same time (32)
  --identities FILE       keep the agents' identities here, and come back as them the next time
  --changes N             entries created one after the other, with the time until the agent has each (20)
  --storm N               cut every connection at once, N times
  --on-input              begin each storm, and the end, when a line comes on standard input: several of these make one storm
  --away SECONDS          how long the server stays cut off in a storm (2)
  --pid PID               the server's process, whose memory is printed (Linux)
  --stay SECONDS          go on being there before the end
`);
  process.exit(0);
}

const clock = systemClock;
const log = createLog({ level: 'fatal', format: 'text', clock });
const say = (event: string, fields: object): void =>
  void process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const at = values.server.lastIndexOf(':');
const server = { host: values.server.slice(0, at), port: Number(values.server.slice(at + 1)) };
const adminSocket = values['admin-socket'];

/** Megabytes of a process that nothing else shares, and all it has in memory. */
function memoryOf(pid: string | undefined): { rssMb: number; privateMb: number } | undefined {
  if (pid === undefined) return undefined;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mb = (name: string) => Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024);
  return { rssMb: mb('VmRSS'), privateMb: mb('RssAnon') };
}

function readIdentities(path: string): NodeRecord[] {
  try {
    return (JSON.parse(readFileSync(path, 'utf8')) as { chain: string[]; pkcs8: string }[]).map(
      (one) =>
        ({
          ...one,
          chain: one.chain.map((der) => Buffer.from(der, 'base64')),
          pkcs8: Buffer.from(one.pkcs8, 'base64'),
        }) as unknown as NodeRecord,
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

const forwarder = Number(values.storm) > 0 ? await startForwarder([server]) : undefined;
const began = clock.now();
const fleet = await startFleet({
  server: forwarder?.address ?? server,
  adminSocket,
  agents: Number(values.agents),
  entriesEach: Number(values['entries-each']),
  fetchSvids: values.svids,
  identities: values.identities === undefined ? [] : readIdentities(values.identities),
  atOnce: Number(values['at-once']),
  clock,
  random: systemRandom,
  log,
});
say('started', { agents: fleet.agents.length, ms: clock.now() - began, server: memoryOf(values.pid) });
if (values.identities !== undefined) {
  const kept = fleet.agents.map(({ node }) => ({
    ...node,
    chain: node.chain.map((der) => der.toString('base64')),
    pkcs8: node.pkcs8.toString('base64'),
  }));
  writeFileSync(values.identities, JSON.stringify(kept), { mode: 0o600 });
}

const admin = adminOf(adminSocket);
/** Creates an entry for an agent; milliseconds until the agent has it. */
async function createAndWait(name: string): Promise<number> {
  const agent = fleet.agents[Math.floor(systemRandom.unit() * fleet.agents.length)]!;
  const start = performance.now();
  const [id] = await admin.createEntries(agent.id, [`/sim/change/${name}`]);
  while (!agent.applied.at(-1)?.entries.some((entry) => entry.startsWith(id!))) await sleep(clock, 1);
  return performance.now() - start;
}
const times: number[] = [];
for (let i = 0; i < Number(values.changes); i += 1) times.push(await createAndWait(`${began}-${i}`));
times.sort((a, b) => a - b);
if (times.length > 0) {
  const rank = (part: number) => Number(times[Math.min(times.length - 1, Math.floor(times.length * part))]!.toFixed(1));
  say('changes', { count: times.length, medianMs: rank(0.5), p99Ms: rank(0.99), mostMs: rank(1) });
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (let storm = 1; forwarder !== undefined && storm <= Number(values.storm); storm += 1) {
  if (values['on-input']) await lines.next();
  forwarder.cut();
  await sleep(clock, Number(values.away) * 1000);
  const away = memoryOf(values.pid);
  const [id] = await admin.createEntries(fleet.agents[0]!.id, [`/sim/storm/${began}-${storm}`]);
  forwarder.mend();
  const mended = clock.now();
  let most = away;
  const isBack = (agent: (typeof fleet.agents)[number]): boolean =>
    agent.status().outage === undefined && agent.status().lastSuccess >= mended;
  let level = fleet.agents.filter(isBack).length;
  let half: number | undefined;
  for (const next = [0.5, 0.9]; level < fleet.agents.length; level = fleet.agents.filter(isBack).length) {
    if (level * 2 >= fleet.agents.length) half ??= clock.now() - mended;
    if (next[0] !== undefined && level >= next[0] * fleet.agents.length) {
      say('storm', { storm, part: next.shift(), ms: clock.now() - mended });
    }
    const now = memoryOf(values.pid);
    if (now !== undefined && now.rssMb > (most?.rssMb ?? 0)) most = now;
    await sleep(clock, 50);
  }
  const told = fleet.agents[0]!.applied.some((group) => group.entries.some((entry) => entry.startsWith(id!)));
  say('storm', {
    storm,
    part: 1,
    half: half ?? clock.now() - mended,
    ms: clock.now() - mended,
    told,
    away,
    most,
    now: memoryOf(values.pid),
  });
}

if (values['on-input']) await lines.next();
await sleep(clock, Number(values.stay) * 1000);
const wrong = fleet.wrong();
const snapshots = fleet.agents.map((agent) => agent.applied.filter(({ snapshot }) => snapshot).length);
say('end', {
  wrong: wrong.length,
  first: wrong.slice(0, 5),
  snapshots: Math.max(...snapshots),
  own: memoryOf(String(process.pid)),
  server: memoryOf(values.pid),
});
admin.close();
await fleet.close();
await forwarder?.close();
process.exit(wrong.length === 0 ? 0 : 1);
