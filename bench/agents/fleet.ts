/** Many simulated agents on one server: join tokens for them, a start without a stampede, and what they say together. */
import type { NodeRecord } from '../../agent/state.ts';
import type { HostPort } from '../../src/config/kinds.ts';
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { bundleFromWire, type WireBundle } from '../../src/wire/bundle.ts';
import { idToWire } from '../../src/wire/id.ts';
import { checkApplied } from './applied.ts';
import { type SimulatedAgent, simulateAgent } from './simulated-agent.ts';

export interface FleetOptions {
  readonly server: HostPort;
  /** For join tokens, entries and the bundle. */
  readonly adminSocket: string;
  readonly agents: number;
  /** Entries for each agent, made before it starts. */
  readonly entriesEach: number;
  readonly fetchSvids: boolean;
  /** Identities from another run, used first. */
  readonly identities?: readonly NodeRecord[];
  /** Agents that start at the same time. */
  readonly atOnce?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Fleet {
  readonly agents: readonly SimulatedAgent[];
  /** The agents that are not at this position, or cannot reach their server. */
  behind(position: number): readonly SimulatedAgent[];
  /** What the checker of applied changes finds, with the agent it was found in. */
  wrong(): readonly string[];
  close(): Promise<void>;
}

/** What a fleet asks of the admin socket. */
export interface Admin {
  bundle(): Promise<Bundle>;
  joinToken(): Promise<string>;
  /** Creates entries, `paths.length` in one call; gives their ids. */
  createEntries(parent: string, paths: readonly string[]): Promise<string[]>;
  close(): void;
}

/** How often an agent is started while the server has no time for it. */
const attempts = 5;

const entryApi = 'spire.api.server.entry.v1.Entry';

/** Connects to a server's admin socket. */
export function adminOf(adminSocket: string): Admin {
  const channel = connectUnix(adminSocket);
  let bundle: Promise<Bundle> | undefined;
  const domain = async () => (await admin.bundle()).trustDomain;
  const admin: Admin = {
    bundle() {
      bundle ??= channel
        .unary('spire.api.server.bundle.v1.Bundle', 'GetBundle', {})
        .then((wire) => bundleFromWire(wire as WireBundle));
      return bundle;
    },
    async joinToken() {
      return (await channel.unary('spire.api.server.agent.v1.Agent', 'CreateJoinToken', { ttl: 3600 })).value;
    },
    async createEntries(parent, paths) {
      const td = await domain();
      const entries = paths.map((path) => ({
        spiffe_id: idToWire(parseId(`spiffe://${td}${path}`)),
        parent_id: idToWire(parseId(parent)),
        selectors: [{ type: 'unix', value: 'uid:1000' }],
      }));
      const { results } = await channel.unary(entryApi, 'BatchCreateEntry', { entries });
      return results.map((result: { status: { code: number; message: string }; entry: { id: string } }) => {
        if (result.status.code !== 0) throw new Error(result.status.message);
        return result.entry.id;
      });
    },
    close: () => channel.close(),
  };
  return admin;
}

/** Starts a fleet; resolves when every agent has synchronised. */
export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { server, identities = [], atOnce = 16, clock, random, log, fetchSvids } = options;
  const admin = adminOf(options.adminSocket);
  const bundle = await admin.bundle();
  const agents: SimulatedAgent[] = [];
  const startOne = async (index: number): Promise<void> => {
    const known = identities[index];
    const from = known === undefined ? { joinToken: await admin.joinToken() } : { node: known };
    const id =
      'node' in from ? from.node.id : `spiffe://${bundle.trustDomain}/spire/agent/join_token/${from.joinToken}`;
    if (known === undefined && options.entriesEach > 0) {
      const name = id.slice(id.lastIndexOf('/') + 1);
      await admin.createEntries(
        id,
        Array.from({ length: options.entriesEach }, (_, entry) => `/sim/${name}/${entry}`),
      );
    }
    const agent = await simulateAgent({ server, bundle, from, fetchSvids, clock, random, log });
    agents[index] = agent;
    await agent.ready;
  };
  /** As an agent does that is started while its server is busy. */
  const startPatiently = async (index: number): Promise<void> => {
    for (let left = attempts; ; left -= 1) {
      try {
        return await startOne(index);
      } catch (error) {
        const isBusy = error instanceof Fault && ['peer/unavailable', 'call/late'].includes(error.code);
        if (left === 1 || !isBusy) throw error;
        await agents[index]?.close();
      }
    }
  };
  const close = async (): Promise<void> => {
    await Promise.all(agents.map((agent) => agent?.close()));
  };
  try {
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < options.agents) await startPatiently(next++);
    };
    await Promise.all(Array.from({ length: Math.min(atOnce, options.agents) }, worker));
  } catch (error) {
    await close();
    throw error;
  } finally {
    admin.close();
  }
  return {
    agents,
    behind: (position) =>
      agents.filter((agent) => {
        const status = agent.status();
        return status.outage !== undefined || status.position < position;
      }),
    wrong: () => agents.flatMap((agent) => checkApplied(agent.applied).map((what) => `${agent.id}: ${what}`)),
    close,
  };
}
