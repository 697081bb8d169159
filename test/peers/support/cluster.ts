/** Several of our servers on one database, each in a process of its own, behind a balancer that can cut them off. */
import { writeFileSync } from 'node:fs';
import { type Forwarder, startForwarder } from '../../../bench/agents/forwarder.ts';
import { mutualProgram } from './mutual.ts';
import type { Netns } from './netns.ts';
import type { Place } from './place.ts';
import type { Program } from './program.ts';

export interface ClusterServer {
  readonly host: string;
  readonly port: number;
  readonly adminSocket: string;
  /** Where /live and /ready are answered. */
  readonly health: string;
  program(): Program;
  /** Starts it again on the same data and port; the old process must have ended. */
  restart(): Promise<void>;
}

export interface Cluster {
  readonly servers: readonly ClusterServer[];
  readonly balancer: Forwarder;
}

/** The server that runs in a network namespace, by its place among the servers. */
export interface Apart {
  readonly index: number;
  readonly netns: Netns;
}

/**
 * Starts `count` servers of trust domain example.org on the database; `more` is added to each configuration.
 * @param apart the one that runs in a network namespace, and reaches the database through it
 */
export async function startCluster(
  place: Place,
  database: string,
  count: number,
  more: object = {},
  apart?: Apart,
): Promise<Cluster> {
  const servers = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      apart?.index === index
        ? startServer(place, `server${index}`, throughNetns(database, apart.netns), more, apart.netns)
        : startServer(place, `server${index}`, database, more),
    ),
  );
  const balancer = await startForwarder(servers.map(({ host, port }) => ({ host, port })));
  return { servers, balancer };
}

/** The URL of a database on a Unix socket, as one in the namespace has to write it. */
function throughNetns(database: string, netns: Netns): string {
  return database.replace(/@\/(\w+)\?.*$/, `@${netns.near}:5432/$1`);
}

/** Starts one server on the database; its port is taken at the first start and kept. */
export async function startServer(
  place: Place,
  name: string,
  database: string,
  more: object = {},
  netns?: Netns,
): Promise<ClusterServer> {
  const host = netns?.address ?? '127.0.0.1';
  const config = place.path(name, 'server.json');
  const adminSocket = place.path(name, 's', 'api.sock');
  const [command, ...args] = [...(netns?.prefix ?? []), process.execPath];
  let port = 0;
  let health = '127.0.0.1:0';
  const up = async (): Promise<Program> => {
    const options = {
      trustDomain: 'example.org',
      dataDir: place.path(name, 'data'),
      listen: `${host}:${port}`,
      adminSocket,
      database,
      rateLimits: { attest: 0, csr: 0, jwt: 0, wit: 0, push: 0, post: 0 },
      health: { listen: health },
      log: { level: 'info' },
      ...more,
    };
    writeFileSync(config, JSON.stringify(options), { mode: 0o600 });
    const program = await place.start(name, command!, [...args, mutualProgram, 'server', 'run', '--config', config]);
    const [, at] = await program.line(/server ready.*listen=\S*?:(\d+)/);
    port = Number(at);
    const [, healthAt] = await program.line(/server ready.*health=(\S+)/);
    health = healthAt!;
    return program;
  };
  let program = await up();
  return {
    host,
    get port() {
      return port;
    },
    adminSocket,
    get health() {
      return health;
    },
    program: () => program,
    async restart() {
      program = await up();
    },
  };
}

/** What a server says of itself at a path of its health listener. */
export async function checksOf(
  server: ClusterServer,
  path = '/ready',
): Promise<{ status: string; checks: Record<string, string> }> {
  return (await (await fetch(`http://${server.health}${path}`)).json()) as never;
}
