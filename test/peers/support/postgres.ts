/** A PostgreSQL server for tests: Debian's programs, a cluster of its own in a place, reached over a Unix socket. */

import { appendFileSync, chownSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import type { Place } from './place.ts';
import { until } from './until.ts';

export interface Postgres {
  /** The folder of its socket. */
  readonly socket: string;
  /** Makes an empty database and gives its URL. */
  database(): Promise<string>;
  /** Runs SQL as the owner in a database of the server, the one of `url` if given. */
  query(text: string, url?: string): Promise<pg.QueryResult>;
  /** Stops the server at once, without waiting for its clients. */
  stop(): Promise<void>;
  /** Starts it again after `stop`. */
  start(): Promise<void>;
}

/**
 * Makes a cluster and starts its server; both go with the place.
 * @param address an IPv4 address of this machine at which it listens too, on port 5432, for whoever reaches that
 */
export async function startPostgres(place: Place, address?: string): Promise<Postgres> {
  const bin = programsOfPostgres();
  const owner = accountOfPostgres();
  const data = place.path('postgres', 'data');
  const socket = place.path('postgres', 'socket');
  mkdirSync(socket);
  for (const dir of [place.dir, join(data, '..'), socket])
    if (owner !== undefined) chownSync(dir, owner.uid, owner.gid);
  const who = owner ?? {};

  const init = await place.start(
    'initdb',
    join(bin, 'initdb'),
    ['-D', data, '-U', 'mutual', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'],
    who,
  );
  const { code } = await init.ended;
  if (code !== 0) throw new Error(`initdb ended with ${code}:\n${init.output()}`);

  if (address !== undefined) appendFileSync(join(data, 'pg_hba.conf'), `host all all ${address}/24 trust\n`);

  const urlOf = (database: string): string => `postgres://mutual@/${database}?host=${encodeURIComponent(socket)}`;
  let server: Awaited<ReturnType<Place['start']>>;
  const start = async (): Promise<void> => {
    const options = [
      `listen_addresses=${address ?? ''}`,
      'port=5432',
      `unix_socket_directories=${socket}`,
      'max_connections=100',
      'shared_buffers=32MB',
    ];
    server = await place.start(
      'postgres',
      join(bin, 'postgres'),
      ['-D', data, ...options.flatMap((one) => ['-c', one])],
      who,
    );
    await until('PostgreSQL answers', 60_000, async () => {
      await query('select 1');
      return true;
    });
  };
  const query = (text: string, url = urlOf('postgres')): Promise<pg.QueryResult> =>
    queryOnce(text, { connectionString: url });
  await start();
  let made = 0;
  return {
    socket,
    async database() {
      made += 1;
      await query(`create database d${made}`);
      return urlOf(`d${made}`);
    },
    query,
    async stop() {
      // SIGINT is the server's fast shutdown.
      await server.stop('SIGINT');
    },
    start,
  };
}

/** The folder with initdb and postgres: the newest of Debian's. */
export function programsOfPostgres(): string {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  for (const version of versions)
    if (existsSync(join(root, version, 'bin', 'initdb'))) return join(root, version, 'bin');
  throw new Error(`no PostgreSQL under ${root}: install the package "postgresql"`);
}

/** Who runs the server: it refuses to run as root. */
export function accountOfPostgres(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return { uid: 65534, gid: 65534 };
}

/** One statement on a connection of its own. */
export async function queryOnce(text: string, config: pg.ClientConfig): Promise<pg.QueryResult> {
  const client = new pg.Client(config);
  client.on('error', () => {});
  await client.connect();
  try {
    return await client.query(text);
  } finally {
    await client.end();
  }
}

/** Begins a transaction that holds these tables, so that whoever wants them waits; gives what ends it. */
export async function holdTables(url: string, tables: string): Promise<() => Promise<void>> {
  const blocker = new pg.Client({ connectionString: url });
  await blocker.connect();
  await blocker.query(`begin; lock table ${tables} in access exclusive mode`);
  return async () => {
    await blocker.query('commit');
    await blocker.end();
  };
}
