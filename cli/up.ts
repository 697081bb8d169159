/**
 * `mutual up`, which is `npm start`: a server and an agent in this process, for a first look. All that passes between the
 * two goes over the sockets and APIs that everybody uses. The agent's token is only ever in memory.
 */
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { readAgentOptions } from '../agent/config.ts';
import { readServerOptions } from '../server/config.ts';
import { asFault, Fault, quote } from '../src/errors.ts';
import { createLog, type RootLog } from '../src/log.ts';
import { sleep } from '../src/run/clock.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { parseId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../src/spiffe/id.ts';
import { parseSelector } from '../src/spiffe/selector.ts';
import { idToWire, selectorToWire } from '../src/wire/id.ts';
import { type Admin, withAdmin } from './admin.ts';
import { codeName } from './batch.ts';
import { bundleText } from './bundle-text.ts';
import { type Message, withCaller } from './caller.ts';
import { command } from './command.ts';
import { choice, text, trustDomain, withDefault } from './flags.ts';
import type { Ports } from './ports.ts';
import { serverAdmin } from './socket-choice.ts';
import { svidTable } from './svid-text.ts';
import { visible } from './visible.ts';
import { withWorkload } from './workload.ts';

/** What `startServer` and `startAgent` give, as far as it is used here. */
interface Running {
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** Milliseconds in which the first SVID must be there, and between two looks. */
const patience = 15_000;
const pause = 20;

export const up = command({
  summary: 'Start a server and an agent here and get a first SVID',
  about:
    'Runs both until Ctrl-C, with everything they keep in one directory; a second start goes on where the first one ended. Processes of the current user get spiffe://TRUST-DOMAIN/user/NAME. This is for a first look and for development: on real nodes, run "mutual server run" and "mutual agent run" apart.',
  flags: {
    trustDomain: withDefault(trustDomain('The trust domain'), parseTrustDomain('example.org')),
    dataDir: withDefault(text('DIR', 'Where both keep their data'), '.mutual'),
    listen: withDefault(text('HOST:PORT', 'Where the server listens for agents'), '127.0.0.1:8081'),
    logLevel: withDefault(
      choice(
        'LEVEL',
        ['error', 'warn', 'info', 'debug', 'trace'],
        'What is logged, into server.log and agent.log in the data directory',
      ),
      'info',
    ),
  },
  examples: [['mutual up', 'A trust domain on this machine']],
  async run(values, ports) {
    const directory = resolve(ports.directory, values.dataDir);
    const began = ports.clock.now();
    await makeDirectory(directory);
    await refuseSecond(directory, ports);
    const logs: RootLog[] = [];
    const openLog = (name: string): RootLog => {
      const log = createLog({
        level: values.logLevel,
        format: 'text',
        file: join(directory, name),
        clock: ports.clock,
      });
      logs.push(log);
      return log;
    };
    const running: Running[] = [];
    try {
      // Flags only: variables of the surroundings, such as the one we tell people to export, are for other programs.
      const serverOptions = readServerOptions({
        flags: { trustDomain: values.trustDomain, dataDir: join(directory, 'server'), listen: values.listen },
      });
      const { startServer } = await import('../server/server.ts');
      const server = await startServer((await serverOptions).options, {
        clock: ports.clock,
        random: ports.random,
        log: openLog('server.log'),
      });
      running.push(server);
      const { agent, svids } = await withAdmin(server.adminSocket, ports, async (admin) => {
        const plan: Plan = {
          ports,
          admin,
          trustDomain: values.trustDomain,
          directory: join(directory, 'agent'),
          server: { host: reachable(server.address.host), port: server.address.port },
          log: openLog('agent.log'),
        };
        await ensureEntry(plan);
        return startAndFetch(plan, (each) => running.push(each));
      });
      greet(
        values.trustDomain,
        { host: server.address.host, port: server.address.port },
        server.adminSocket,
        agent.socket,
        svids,
        ports.clock.now() - began,
        ports,
      );
      await ended(running, ports.stop);
      ports.err('\nStopping\n');
      return 0;
    } finally {
      for (const each of running.reverse()) await each.close();
      for (const log of logs) log.close();
    }
  },
});

/** The database would refuse a second server too, but only after waiting for the first one to let go of it. */
async function refuseSecond(directory: string, ports: Ports): Promise<void> {
  const path = join(directory, 'server/private/api.sock');
  if (!(await isThere(path))) return;
  const runs = await withCaller(serverAdmin, path, ports, (caller) =>
    caller.call('grpc.health.v1.Health', 'Check', { service: '' }, { deadlineMs: 2000 }),
  ).then(
    () => true,
    // A socket that a killed program left behind: nobody answers, and the server replaces it.
    () => false,
  );
  if (runs) {
    throw new Fault('state/refused', `a server already runs with its data in ${quote(directory)}`, {
      hint: 'Use that one, stop it, or give another --data-dir.',
    });
  }
}

interface Plan {
  readonly ports: Ports;
  readonly admin: Admin;
  readonly trustDomain: TrustDomain;
  /** The agent's data directory. */
  readonly directory: string;
  readonly server: { readonly host: string; readonly port: number };
  readonly log: RootLog;
}

interface Agent extends Running {
  readonly socket: string;
  status(): { readonly lastSync: number };
}

/** The name that entries of this node have as their parent, whichever token its agent came by. */
const aliasOf = (domain: TrustDomain): SpiffeId => parseId(`spiffe://${domain}/local`);

/** One entry for the processes of the current user; from an earlier start it is there already. */
async function ensureEntry({ admin, ports, trustDomain: domain }: Plan): Promise<void> {
  const { uid, name } = ports.user;
  const plain = name.replace(/[^A-Za-z0-9._-]/g, '_');
  const segment = /^\.{0,2}$/.test(plain) ? `uid-${uid}` : plain;
  const entry = {
    spiffe_id: idToWire(parseId(`spiffe://${domain}/user/${segment}`)),
    parent_id: idToWire(aliasOf(domain)),
    selectors: [selectorToWire(parseSelector(`unix:uid:${uid}`))],
  };
  const { results } = await admin.call('entry', 'BatchCreateEntry', { entries: [entry] });
  const { code, message } = results[0].status;
  if (code !== 0 && codeName(code) !== 'AlreadyExists')
    throw new Fault('state/refused', `the entry for user ${quote(name)} was not created: ${message}`);
}

/** Starts the agent with what it kept, or with a new token when that is nothing or of no use any more. */
async function startAndFetch(plan: Plan, started: (agent: Running) => void): Promise<{ agent: Agent; svids: Message }> {
  const { directory, ports } = plan;
  const state = join(directory, 'state');
  if (await isThere(state)) {
    let agent: Agent | undefined;
    try {
      agent = await start(plan, undefined);
      const svids = await firstSvids(agent, ports);
      started(agent);
      return { agent, svids };
    } catch (error) {
      await agent?.close();
      const fault = asFault(error);
      if (
        ports.stop.aborted ||
        !(error instanceof Fault) ||
        fault.code === 'data/foreign' ||
        fault.code === 'config/invalid'
      )
        throw error;
      ports.err(`The agent cannot go on with what it kept (${visible(fault.message)}); it joins anew.\n`);
      await rm(`${state}.unusable`, { recursive: true, force: true });
      await rename(state, `${state}.unusable`);
    }
  }
  const token = await plan.admin.call('agent', 'CreateJoinToken', {
    ttl: 60,
    agent_id: idToWire(aliasOf(plan.trustDomain)),
  });
  const agent = await start(plan, token.value);
  started(agent);
  return { agent, svids: await firstSvids(agent, ports) };
}

async function start(
  { admin, ports, trustDomain: domain, directory, server, log }: Plan,
  joinToken: string | undefined,
): Promise<Agent> {
  await makeDirectory(directory);
  const trustBundle = join(directory, 'bootstrap.pem');
  await writeFileAtomic(trustBundle, bundleText(await admin.call('bundle', 'GetBundle', {}), 'pem'), 0o644);
  const { options } = await readAgentOptions({
    flags: {
      trustDomain: domain,
      server: `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`,
      dataDir: directory,
      trustBundle,
      ...(joinToken !== undefined && { joinToken }),
    },
  });
  const { startAgent } = await import('../agent/agent.ts');
  return startAgent(options, { clock: ports.clock, random: ports.random, log });
}

/**
 * Asks as any workload would, until the entry has reached the agent. What an agent kept from an earlier start does not
 * count before the server has answered it: it may have been evicted since. Throws what ended the agent, if that happens.
 */
async function firstSvids(agent: Agent, ports: Ports): Promise<Message> {
  const deadline = ports.clock.now() + patience;
  const died = agent.closed.then(() => {
    throw new Fault('state/refused', 'the agent ended before it had an SVID', {
      hint: 'See agent.log in the data directory.',
    });
  });
  died.catch(() => {});
  const ask = (): Promise<Message> =>
    withWorkload(agent.socket, ports, (workload) => workload.first('FetchX509SVID', {}, patience / 1000));
  while (agent.status().lastSync === 0 && ports.clock.now() < deadline) {
    await Promise.race([died, sleep(ports.clock, pause, ports.stop)]);
  }
  for (;;) {
    try {
      return await Promise.race([died, ask()]);
    } catch (error) {
      const again = error instanceof Fault && (error.code === 'caller/denied' || error.code === 'peer/unavailable');
      if (!again || ports.clock.now() > deadline) throw error;
      await Promise.race([died, sleep(ports.clock, pause, ports.stop)]);
    }
  }
}

/** Resolves when a signal came; rejects when one of the two cannot go on. */
async function ended(running: readonly Running[], stop: AbortSignal): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    else stop.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([stopped, ...running.map((each) => each.closed)]);
}

function greet(
  domain: TrustDomain,
  server: { host: string; port: number },
  adminSocket: string,
  socket: string,
  svids: Message,
  ms: number,
  ports: Ports,
): void {
  const { out } = ports;
  out(
    `${ports.style('green', 'Mutual is up.')} Trust domain ${domain}, server on ${server.host}:${server.port}, first SVID after ${(ms / 1000).toFixed(1)} s.\n\n`,
  );
  out(`${svidTable(svids, ports)}\n`);
  out(`${ports.style('bold', 'In another terminal:')}\n\n`);
  out(`export SPIFFE_ENDPOINT_SOCKET=unix://${socket}\n`);
  out(`export MUTUAL_ADMIN_SOCKET=${adminSocket}\n\n`);
  const tries = [
    ['npx mutual fetch x509', 'the SVID of a process of yours'],
    ['npx mutual fetch jwt --audience hello', 'a JWT-SVID for an audience'],
    ['npx mutual watch', 'each renewal as it comes'],
    ['npx mutual entry list', 'who may have which identity'],
    ['npx mutual entry create --help', 'give an identity to something else'],
  ] as const;
  for (const [line, does] of tries) out(`  ${line.padEnd(40)}${ports.style('dim', `# ${does}`)}\n`);
  out('\nCtrl-C stops both.\n');
}

/** An address that accepts from everywhere is reached here. */
const reachable = (host: string): string => (host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host);

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw new Fault('config/invalid', `directory ${quote(path)} cannot be made: ${(error as Error).message}`, {
      hint: 'Give another place with --data-dir.',
      cause: error,
    });
  }
}
