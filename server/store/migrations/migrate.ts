/**
 * Brings a database to this program's schema. Migrations are numbered and only ever added. `compatible` is the oldest
 * schema whose programs still work on the new one: a change that only expands keeps it, so that two adjacent versions run
 * together; the one that contracts raises it.
 */
import { Fault } from '../../../src/errors.ts';
import { readHead } from '../log.ts';
import { type Engine, insert, type Session, statement } from '../statement.ts';
import { first } from './0001-first.ts';

export interface Migration {
  readonly version: number;
  /** The lowest schema version whose programs can use the database after this. */
  readonly compatible: number;
  /** Statements, run in order. */
  readonly definitions: (engine: Engine) => readonly string[];
}

/** In order, without a gap. */
export const migrations: readonly Migration[] = [first];
const ours = migrations.at(-1)!.version;

const version = statement<Record<string, never>, { version: number; compatible: number }>((db) =>
  db.selectFrom('schema_version').select(['version', 'compatible']).orderBy('version', 'desc').limit(1),
);

const ends = statement<Record<string, never>, { lowest: number | null; highest: number | null }>((db) =>
  db.selectFrom('changes').select((eb) => [eb.fn.min('position').as('lowest'), eb.fn.max('position').as('highest')]),
);

/**
 * Runs what is missing. The caller holds a transaction that keeps other migrators out.
 * @param logId the identity of the log, should it begin here
 * Throws `data/foreign` when the database is of a newer schema, `data/corrupt` when its log is not whole.
 */
export async function migrate(session: Session, logId: string): Promise<void> {
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
}

/** The head of the log and its changes are written together; when they disagree, somebody else has written here. */
async function checkLog(session: Session): Promise<void> {
  const { position, oldest } = await readHead(session);
  const { lowest, highest } = (await session.all(ends, {}))[0]!;
  if ((lowest ?? position + 1) === oldest && (highest ?? position) === position) return;
  throw new Fault(
    'data/corrupt',
    `the database's log holds changes ${lowest} to ${highest} where it should hold ${oldest} to ${position}`,
    { hint: 'Restore the database from a backup.' },
  );
}
