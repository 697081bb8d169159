/** Connections to PostgreSQL as Sessions, and its errors as faults. */
import pg from 'pg';
import { Fault } from '../../src/errors.ts';
import type { Session, SqlValue, Statement } from './statement.ts';

/** How long the database may take over one statement, and a lock may be waited for, milliseconds. */
const statementMs = 30_000;
/**
 * How long a server may do nothing in a transaction, milliseconds. It holds the head of the log meanwhile, for which the
 * others wait: one that was stopped, or cut off, must lose it well before their own patience (`statementMs`) ends.
 */
const heldMs = 10_000;

const int8 = 20;
const plainTypes: pg.CustomTypesConfig = {
  // Positions, times and flags fit a number; larger ones are stored as text.
  getTypeParser: ((oid: number, format?: 'text') =>
    oid === int8 ? Number : pg.types.getTypeParser(oid, format)) as pg.CustomTypesConfig['getTypeParser'],
};

/**
 * What every connection is told first. A committed write must be on disk, whatever the database's default says. Plans are
 * made for each run: one kept from when a table was empty reads all of it, which at 30,000 entries makes creation twenty
 * times slower until the database has looked at its tables again.
 */
const setUp = (patienceMs: number): string => `
  set statement_timeout = ${patienceMs}; set lock_timeout = ${patienceMs};
  set plan_cache_mode = force_custom_plan; set idle_in_transaction_session_timeout = ${heldMs};
  select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'`;

export interface Connections {
  /** Runs work on a connection of its own, and once more on a fresh one when the first turns out to be dead at `begin`. */
  use<T>(begin: string | undefined, work: (session: Session) => Promise<T>): Promise<T>;
  /** A connection outside the pool, for listening. It is not connected yet. */
  lone(): pg.Client;
  close(): Promise<void>;
}

/**
 * Makes a pool; nothing is connected before it is used.
 * @param patienceMs how long the database may take over one statement, milliseconds
 */
export function connections(url: string, patienceMs = statementMs): Connections {
  const config: pg.PoolConfig = {
    connectionString: url,
    application_name: 'mutual',
    types: plainTypes,
    keepAlive: true,
    connectionTimeoutMillis: 5000,
    // Longer than the database's own limit: this ends waiting for a host that has vanished.
    query_timeout: patienceMs + 5000,
  };
  const pool = new pg.Pool({ ...config, max: 6, allowExitOnIdle: true });
  // The pool removes a connection that breaks; without listeners the event would end the process.
  pool.on('error', () => {});
  pool.on('connect', (client) => {
    client.on('error', () => {});
  });
  const ready = new WeakSet<pg.PoolClient>();

  const take = async (begin: string | undefined): Promise<pg.PoolClient> => {
    const client = await pool.connect();
    try {
      if (!ready.has(client)) await client.query(setUp(patienceMs));
      ready.add(client);
      if (begin !== undefined) await client.query(begin);
      return client;
    } catch (error) {
      client.release(true);
      throw error;
    }
  };
  const takeLive = async (begin: string | undefined): Promise<pg.PoolClient> => {
    try {
      return await take(begin).catch((error: unknown) => {
        if (postgresFault(error, url).code !== 'peer/unavailable' || refusesConnections(error)) throw error;
        return take(begin);
      });
    } catch (error) {
      throw postgresFault(error, url);
    }
  };

  return {
    async use(begin, work) {
      const client = await takeLive(begin);
      let broken = false;
      const session = sessionOver(client, url, () => {
        broken = true;
      });
      try {
        return await work(session);
      } finally {
        client.release(broken);
      }
    },
    lone: () => new pg.Client({ ...config, keepAliveInitialDelayMillis: 10_000 }),
    close: () => pool.end(),
  };
}

function sessionOver(client: pg.PoolClient, url: string, onBroken: () => void): Session {
  const guarded = async <T>(work: Promise<T>, committing: boolean): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      const fault = postgresFault(error, url);
      if (fault.code === 'peer/unavailable' || fault.code === 'system/failed') onBroken();
      if (!committing || fault.code !== 'peer/unavailable') throw fault;
      throw new Fault('peer/unavailable', `${fault.message}, while committing: the change may or may not be stored`, {
        ...(fault.detail !== undefined && { detail: fault.detail }),
        hint: 'Read what is stored before trying again.',
        cause: error,
      });
    }
  };
  return {
    engine: 'postgres',
    async all<P, R>(statement: Statement<P, R>, given: P) {
      const { name } = statement;
      const values: SqlValue[] = statement.bind('postgres', given);
      const done = client.query({ name, text: statement.text('postgres'), values });
      return (await guarded(done, false)).rows as R[];
    },
    async run(text) {
      await guarded(client.query(text), text.endsWith('commit'));
    },
  };
}

const refusesConnections = (error: unknown): boolean =>
  ['ECONNREFUSED', 'ENOENT', 'ENOTFOUND', 'EAI_AGAIN', '57P03', '53300'].includes(
    (error as { code?: string }).code ?? '',
  );

/** Given up, by the database or by us, after waiting for as long as anybody waits. */
const lateCodes: readonly string[] = ['57014', '55P03'];
const noAnswer = 'Query read timeout';
/** What the pool says when none of its connections came free. */
const allTaken = 'timeout exceeded when trying to connect';

/** Whether a fault of a session says that the database, or a lock in it, was waited for in vain. */
export function tookTooLong({ cause }: Fault): boolean {
  const { code = '', message = '' } = (cause ?? {}) as { code?: string; message?: string };
  return lateCodes.includes(code) || message === noAnswer;
}

/** Where a URL points, without user and password. */
export function placeOf(url: string): string {
  try {
    // A URL without a host, as of a Unix socket, is none to the URL parser.
    const { hostname, port, pathname, searchParams } = new URL(url.replace(/(\/\/[^/@]*@)(?=[/:])/, '$1localhost'));
    const host = searchParams.get('host') ?? decodeURIComponent(hostname);
    return `${host}${port === '' ? '' : `:${port}`}${pathname}`;
  } catch {
    return 'the given address';
  }
}

/**
 * What went wrong, in a sentence. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
 * @param error what pg threw
 */
export function postgresFault(error: unknown, url: string): Fault {
  if (error instanceof Fault) return error;
  const { code = '', message = String(error) } = error as { code?: string; message?: string };
  const extras = { detail: `${code} ${message}`.trim(), cause: error };
  const database = `the database at ${placeOf(url)}`;
  const fault = (kind: Fault['code'], what: string, hint?: string): Fault =>
    new Fault(kind, `${database} ${what}`, { ...extras, ...(hint !== undefined && { hint }) });

  if (['28P01', '28000'].includes(code)) return fault('config/invalid', 'refused the user or the password');
  if (code === '3D000') return fault('config/invalid', 'does not exist', 'Create it, then start again.');
  if (code === '42501')
    return fault('system/failed', 'does not let this user do that', 'Give the user its own database.');
  if (code === '53100') return fault('system/failed', 'cannot grow: its disk is full');
  if (code === '53300') return fault('peer/unavailable', 'has no connection left for us');
  if (code === '25006') return fault('peer/unavailable', 'is read-only', 'Connect to the primary, not to a standby.');
  if (['XX001', 'XX002'].includes(code))
    return fault('data/corrupt', 'reports damaged data', 'Restore it from a backup.');
  if (['22021', '22P05'].includes(code)) return new Fault('input/invalid', 'a value contains a NUL character', extras);
  if ([...lateCodes, '25P03', '40001', '40P01'].includes(code) || message === noAnswer) {
    return fault('peer/unavailable', 'did not finish in time');
  }
  if (message === allTaken) return fault('peer/unavailable', 'is too slow: all our connections to it are waiting');
  if (isConnectionLoss(code, message)) return fault('peer/unavailable', 'cannot be reached');
  return fault('system/failed', 'failed');
}

function isConnectionLoss(code: string, message: string): boolean {
  return (
    code.startsWith('08') ||
    ['57P01', '57P02', '57P03', '57P05'].includes(code) ||
    /^E[A-Z_]+$/.test(code) ||
    /terminated|timeout|not queryable|Cannot use a pool|closed the connection/i.test(message)
  );
}
