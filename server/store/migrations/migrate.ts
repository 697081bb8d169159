/**
 * Brings a database to this program's schema. Migrations are numbered and only ever added. `compatible` is the oldest
 * schema whose programs still work on the new one: a change that only expands keeps it, so that two adjacent versions run
 * together; the one that contracts raises it.
 */
import { sql } from 'kysely';
import { Fault } from '../../../src/errors.ts';
import { type Engine, insert, type Session, statement } from '../statement.ts';
import { first } from './0001-first.ts';
import { revocation } from './0002-revocation.ts';

export interface Migration {
  readonly version: number;
  /** The lowest schema version whose programs can use the database after this. */
  readonly compatible: number;
  /** Statements, run in order. */
  readonly definitions: (engine: Engine) => readonly string[];
}

/** In order, without a gap. */
export const migrations: readonly Migration[] = [first, revocation];
const ours = migrations.at(-1)!.version;

const version = statement<Record<string, never>, { version: number; compatible: number }>((db) =>
  db.selectFrom('schema_version').select(['version', 'compatible']).orderBy('version', 'desc').limit(1),
);

/** Whether the first table is there, asked in a way that fails in neither engine when it is not. */
const tables = {
  sqlite: statement<Record<string, never>, { name: string }>((db) =>
    // biome-ignore lint/suspicious/noExplicitAny: a table of the engine's own
    (db as any).selectFrom('sqlite_master').select('name').where('name', '=', 'schema_version'),
  ),
  postgres: statement<Record<string, never>, { name: string }>((db) =>
    // biome-ignore lint/suspicious/noExplicitAny: as above
    (db as any)
      .selectFrom('pg_tables')
      .select('tablename as name')
      .where('tablename', '=', 'schema_version')
      .where('schemaname', '=', sql`any(current_schemas(false))`),
  ),
};
/** One statement, since others may be writing: what it reads is of one moment. */
const ends = statement<
  Record<string, never>,
  { position: number; oldest: number; lowest: number | null; highest: number | null }
>((db) =>
  db
    .selectFrom('log_head')
    .select((eb) => [
      'position',
      'oldest',
      eb
        .selectFrom('changes')
        .select((changes) => changes.fn.min<number>('position').as('end'))
        .as('lowest'),
      eb
        .selectFrom('changes')
        .select((changes) => changes.fn.max<number>('position').as('end'))
        .as('highest'),
    ])
    .where('one', '=', 1),
);

/** The schema's version before and after; 0 for an empty database. */
export interface Migrated {
  readonly before: number;
  readonly after: number;
}

/**
 * Runs what is missing. The caller holds a transaction that keeps other migrators out.
 * @param logId the identity of the log, should it begin here
 * @param allowed whether anything may be changed
 * Throws `data/foreign` when the database is of a newer schema, `data/corrupt` when its log is not whole, and
 * `state/refused` when something is missing that may not be changed.
 */
export async function migrate(session: Session, logId: string, allowed = true): Promise<Migrated> {
  if (!allowed) await requireSchema(session);
  await session.run(
    'create table if not exists schema_version (version integer primary key not null, compatible integer not null)',
  );
  const stored = (await session.all(version, {}))[0] ?? { version: 0, compatible: 0 };
  if (stored.compatible > ours) {
    throw new Fault('data/foreign', `the database has schema ${stored.version}, this program knows ${ours} at most`, {
      hint: `Run the version of the program that wrote it, or a later one; it needs schema ${stored.compatible} or newer.`,
    });
  }
  for (const migration of migrations) {
    if (migration.version <= stored.version) continue;
    for (const text of migration.definitions(session.engine)) await session.run(text);
    await insert(session, 'schema_version', [{ version: migration.version, compatible: migration.compatible }]);
  }
  if (stored.version === 0) await insert(session, 'log_head', [{ one: 1, log_id: logId, position: 0, oldest: 1 }]);
  await checkLog(session);
  return { before: stored.version, after: Math.max(stored.version, ours) };
}

/** The version of the schema that is there; 0 when there is none. */
export async function schemaOf(session: Session): Promise<number> {
  if ((await session.all(tables[session.engine], {})).length === 0) return 0;
  return (await session.all(version, {}))[0]?.version ?? 0;
}

/** Where nothing may be changed, the schema has to be there already: the statements below would make what is missing. */
async function requireSchema(session: Session): Promise<void> {
  const held = await schemaOf(session);
  if (held >= ours) return;
  throw new Fault(
    'state/refused',
    held === 0
      ? 'the database is empty, and this server may not make its schema'
      : `the database has schema ${held}, this program needs ${ours}, and this server may not change it`,
    { hint: 'Run "mutual server migrate" once, or start with migrateAtStart.' },
  );
}

/** The head of the log and its changes are written together; when they disagree, somebody else has written here. */
async function checkLog(session: Session): Promise<void> {
  const { position, oldest, lowest, highest } = (await session.all(ends, {}))[0]!;
  if ((lowest ?? position + 1) === oldest && (highest ?? position) === position) return;
  throw new Fault(
    'data/corrupt',
    `the database's log holds changes ${lowest} to ${highest} where it should hold ${oldest} to ${position}`,
    { hint: 'Restore the database from a backup.' },
  );
}
