/** One simulated agent on a server, and what an operator does there: enough to see what a bad database does to both. */
import { leftBy } from '../../../bench/agents/applied.ts';
import { adminOf, type Fleet, startFleet } from '../../../bench/agents/fleet.ts';
import { type ClusterServer, checksOf } from './cluster.ts';
import { agentPorts } from './three-servers.ts';
import { until } from './until.ts';

/** Starts the agent, which has one entry and fetches its SVIDs. */
export function fleetOfOne(server: ClusterServer): Promise<Fleet> {
  return startFleet({
    server: { host: '127.0.0.1', port: server.port },
    adminSocket: server.adminSocket,
    agents: 1,
    entriesEach: 1,
    fetchSvids: true,
    ...agentPorts,
  });
}

/** Creates entries for an agent; their ids, or the refusal. */
export async function create(server: ClusterServer, agent: string, name: string, count = 1): Promise<string[] | Error> {
  const admin = adminOf(server.adminSocket);
  const paths = Array.from({ length: count }, (_, i) => `/${name}/${i}`);
  return admin
    .createEntries(agent, paths)
    .catch((error: Error) => error)
    .finally(() => admin.close());
}

/** What /ready says of the store. */
export const storeOf = async (server: ClusterServer): Promise<string> => (await checksOf(server)).checks.store!;
export const ready = (server: ClusterServer): Promise<boolean> =>
  until('ready', 60_000, async () => (await checksOf(server)).status === 'ok', 200);
/** Whether the agent has been told of the entry, and not of its end. */
export const holds = (fleet: Fleet, id: string): boolean =>
  leftBy(fleet.agents[0]!.applied).some((one) => one.startsWith(id));
