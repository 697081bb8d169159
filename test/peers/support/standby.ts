/** A standby of a test's PostgreSQL server: a base backup that follows it over streaming replication. */
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import type { Place } from './place.ts';
import { accountOfPostgres, type Postgres, programsOfPostgres, queryOnce } from './postgres.ts';
import type { Program } from './program.ts';
import { until } from './until.ts';

export interface Standby {
  /** The URL of a database on the standby. */
  urlOf(database: string): string;
  query(text: string, database?: string): Promise<pg.QueryResult>;
  /** Resolves when it has repeated everything that the primary has written by now. */
  level(): Promise<void>;
  /** Lets it repeat nothing more until `resume`. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

/** Copies the primary and follows it; the standby goes with the place. */
export async function startStandby(place: Place, primary: Postgres, name = 'standby'): Promise<Standby> {
  const bin = programsOfPostgres();
  const owner = accountOfPostgres();
  const who = owner ?? {};
  const data = place.path(name, 'data');
  const socket = place.path(name, 'socket');
  mkdirSync(socket);
  if (owner !== undefined) for (const dir of [join(data, '..'), socket]) chownSync(dir, owner.uid, owner.gid);

  const copy = await place.start(
    'pg_basebackup',
    join(bin, 'pg_basebackup'),
    ['-D', data, '-R', '-X', 'stream', '-c', 'fast', '--no-sync', '-h', primary.socket, '-U', 'mutual'],
    who,
  );
  const { code } = await copy.ended;
  if (code !== 0) throw new Error(`pg_basebackup ended with ${code}:\n${copy.output()}`);
  const options = [
    'listen_addresses=',
    'port=5432',
    `unix_socket_directories=${socket}`,
    'max_connections=100',
    'shared_buffers=16MB',
  ];
  const program: Program = await place.start(
    name,
    join(bin, 'postgres'),
    ['-D', data, ...options.flatMap((one) => ['-c', one])],
    who,
  );
  const query = (text: string, database = 'postgres'): Promise<pg.QueryResult> =>
    queryOnce(text, { host: socket, user: 'mutual', database });
  await until('the standby answers', 60_000, async () => (await query('select pg_is_in_recovery() as is')).rows[0].is);
  return {
    urlOf: (database) => `postgres://mutual@/${database}?host=${encodeURIComponent(socket)}`,
    query,
    async level() {
      const { rows } = await primary.query('select pg_current_wal_lsn()::text as at');
      await until('the standby is level', 60_000, async () => {
        const there = await query(`select pg_last_wal_replay_lsn() >= '${rows[0].at}' as level`);
        return there.rows[0].level;
      });
    },
    async pause() {
      await query('select pg_wal_replay_pause()');
      await until('it is paused', 60_000, async () => {
        const { rows } = await query('select pg_get_wal_replay_pause_state() as state');
        return rows[0].state === 'paused';
      });
    },
    async resume() {
      await query('select pg_wal_replay_resume()');
    },
    async stop() {
      await program.stop('SIGINT');
    },
  };
}
