/** The agent's half of `mutual up`: its entry, its start with or without a token, and its first SVID. */
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readAgentOptions } from '../agent/config.ts';
import { asFault, Fault, quote } from '../src/errors.ts';
import type { RootLog } from '../src/log.ts';
import { sleep } from '../src/run/clock.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { parseId, type SpiffeId, type TrustDomain } from '../src/spiffe/id.ts';
import { parseSelector } from '../src/spiffe/selector.ts';
import { idToWire, selectorToWire } from '../src/wire/id.ts';
import type { Admin } from './admin.ts';
import { codeName } from './batch.ts';
import { bundleText } from './bundle-text.ts';
import type { Message } from './caller.ts';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';
import { withWorkload } from './workload.ts';

/** A program that runs in this process. */
export interface Running {
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** Milliseconds in which the first SVID must be there, and between two looks. */
const patience = 15_000;
const pause = 20;

/** What the agent is started with. */
export interface Plan {
  readonly ports: Ports;
  readonly admin: Admin;
  readonly trustDomain: TrustDomain;
  /** The agent's data directory. */
  readonly directory: string;
  readonly server: { readonly host: string; readonly port: number };
  readonly log: RootLog;
  readonly witSvids: boolean;
}

/** What `startAgent` gives, as far as it is used here. */
export interface UpAgent extends Running {
  readonly socket: string;
  status(): { readonly lastSync: number; readonly outage: string | undefined };
}

/** The name that entries of this node have as their parent, whichever token its agent came by. */
const aliasOf = (domain: TrustDomain): SpiffeId => parseId(`spiffe://${domain}/local`);

/** One entry for the processes of the current user; from an earlier start it is there already. */
export async function ensureEntry({ admin, ports, trustDomain: domain }: Plan): Promise<void> {
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

/**
 * Starts the agent with what it kept, or with a new token when that is nothing or of no use any more.
 * @param started told of the agent that is running, to close it at the end
 */
export async function startAndFetch(
  plan: Plan,
  started: (agent: Running) => void,
): Promise<{ agent: UpAgent; svids: Message }> {
  const { directory, ports } = plan;
  const state = join(directory, 'state');
  if (await isThere(state)) {
    let agent: UpAgent | undefined;
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
  { admin, ports, trustDomain: domain, directory, server, log, witSvids }: Plan,
  joinToken: string | undefined,
): Promise<UpAgent> {
  await makeDirectory(directory);
  const trustBundle = join(directory, 'bootstrap.pem');
  await writeFileAtomic(trustBundle, bundleText(await admin.call('bundle', 'GetBundle', {}), 'pem'), 0o644);
  const { options } = await readAgentOptions({
    flags: {
      trustDomain: domain,
      server: `${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`,
      dataDir: directory,
      trustBundle,
      witSvidsEnabled: witSvids,
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
async function firstSvids(agent: UpAgent, ports: Ports): Promise<Message> {
  const deadline = ports.clock.now() + patience;
  const died = agent.closed.then(() => {
    throw new Fault('state/refused', 'the agent ended before it had an SVID', {
      hint: 'See agent.log in the data directory.',
    });
  });
  died.catch(() => {});
  const ask = (): Promise<Message> =>
    withWorkload(agent.socket, ports, (workload) => workload.first('FetchX509SVID', {}, patience / 1000));
  while (agent.status().lastSync === 0) {
    // The server is in this process: when the agent cannot use it, waiting will not help.
    const outage =
      agent.status().outage ?? (ports.clock.now() > deadline ? 'the server does not answer it' : undefined);
    if (outage !== undefined) throw new Fault('peer/unavailable', outage);
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

/** Whether there is anything at a path. */
export const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Makes a directory and those above it. Throws `config/invalid`. */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw new Fault('config/invalid', `directory ${quote(path)} cannot be made: ${(error as Error).message}`, {
      hint: 'Give another place with --data-dir.',
      cause: error,
    });
  }
}
