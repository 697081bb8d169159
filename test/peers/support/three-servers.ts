/** Three of our servers on one PostgreSQL behind a balancer, and a fleet of agents that have their SVIDs. */
import { adminOf, type Fleet, startFleet } from '../../../bench/agents/fleet.ts';
import { createLog } from '../../../src/log.ts';
import { systemClock as clock } from '../../../src/run/clock.ts';
import { systemRandom as random } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { type Apart, type Cluster, startCluster } from './cluster.ts';
import type { Place } from './place.ts';
import { type Postgres, startPostgres } from './postgres.ts';
import { until } from './until.ts';

export const fleetSize = 200;

export interface ThreeServers {
  readonly postgres: Postgres;
  /** The database's URL. */
  readonly database: string;
  readonly cluster: Cluster;
  readonly fleet: Fleet;
  /** The trust domain's bundle, as one of the servers has it. */
  bundleOf(server: number): Promise<Bundle>;
  close(): Promise<void>;
}

/** What simulated agents take their time, chance and silence from. */
export const agentPorts = { clock, random, log: createLog({ level: 'fatal', format: 'text', clock }) };

/** @param apart the server that runs in a network namespace, and reaches the database through it */
export async function startThreeServers(place: Place, apart?: Apart): Promise<ThreeServers> {
  const postgres = await startPostgres(place, apart?.netns.near);
  const database = await postgres.database();
  const cluster = await startCluster(place, database, 3, {}, apart);
  const fleet = await startFleet({
    server: cluster.balancer.address,
    adminSocket: cluster.servers[0]!.adminSocket,
    agents: fleetSize,
    entriesEach: 2,
    fetchSvids: true,
    atOnce: 8,
    ...agentPorts,
  });
  await until('every agent has its SVIDs', 120_000, async () =>
    fleet.agents.every(({ svids, entries }) => svids === entries),
  );
  return {
    postgres,
    database,
    cluster,
    fleet,
    async bundleOf(server) {
      const admin = adminOf(cluster.servers[server]!.adminSocket);
      return admin.bundle().finally(() => admin.close());
    },
    async close() {
      await fleet.close();
      await cluster.balancer.close();
    },
  };
}
