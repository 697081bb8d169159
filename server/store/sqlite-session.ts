/** A SQLite database as a Session: node:sqlite with prepared statements, and its errors as faults. */
import { accessSync, chmodSync, closeSync, constants, fsyncSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { Fault, quote } from '../../src/errors.ts';
import type { Session, SqlValue, Statement } from './statement.ts';

/** "MUTL": marks the file as ours (SQLite's header, offset 68). */
const applicationId = 0x4d55544c;

export interface SqliteDatabase {
  readonly session: Session;
  /** Gives back the memory of pages that are kept to be read again; a database that is closed has none. */
  shrink(): void;
  close(): void;
}

/**
 * Opens or creates a database and takes it for this process alone: a second server on one file would not hear of the
 * first one's changes.
 * @param path of the file, or `:memory:`
 * @param waitMs how long to wait for another process to let go of it, milliseconds
 * Throws `data/foreign`, `data/corrupt`, `peer/unavailable` (another process has it) and `system/failed`.
 */
export function openSqlite(path: string, waitMs: number): SqliteDatabase {
  if (path !== ':memory:') createFile(path);
  return guarded(path, () => {
    const db = new DatabaseSync(path, { timeout: waitMs });
    try {
      prepare(db, path);
    } catch (error) {
      db.close();
      throw error;
    }
    return {
      session: sessionOver(db, path),
      shrink: () => {
        if (db.isOpen) db.exec('pragma shrink_memory');
      },
      close: () => guarded(path, () => db.close()),
    };
  });
}

function prepare(db: DatabaseSync, path: string): void {
  db.exec(
    'pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on',
  );
  // 16 MB of pages in memory, and a write-ahead log that does not stay large after a burst. It is copied into the database
  // every 32 MB: pages touched again and again (indexes) are then copied once, which at 100,000 entries makes creation
  // a third faster than SQLite's 4 MB, and the copying stalls a commit no longer.
  db.exec('pragma cache_size = -16384; pragma journal_size_limit = 67108864; pragma wal_autocheckpoint = 8000');
  const check = db.prepare('pragma quick_check(1)').get() as { quick_check: string };
  if (check.quick_check !== 'ok') {
    throw new Fault('data/corrupt', `the database ${quote(path)} is damaged: ${check.quick_check}`, {
      hint: 'Restore it from a backup.',
    });
  }
  const { application_id: mark } = db.prepare('pragma application_id').get() as { application_id: number };
  if (mark === applicationId) return;
  const { tables } = db.prepare('select count(*) as tables from sqlite_schema').get() as { tables: number };
  if (mark !== 0 || tables > 0) {
    throw new Fault('data/foreign', `the database ${quote(path)} was made by another program`, {
      hint: 'Give the path of a file that does not exist yet.',
    });
  }
  db.exec(`pragma application_id = ${applicationId}`);
}

/** Creates the file before SQLite does, so that nobody else can read it; its companions take over its mode. */
function createFile(path: string): void {
  guarded(path, () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) return;
    closeSync(openSync(path, 'a', 0o600));
    chmodSync(path, 0o600);
    // The name of the new file must outlive a power cut as what is committed to it does.
    const dir = openSync(dirname(path), 'r');
    fsyncSync(dir);
    closeSync(dir);
  });
}

function sessionOver(db: DatabaseSync, path: string): Session {
  const prepared = new Map<Statement<never, unknown>, StatementSync>();
  return {
    engine: 'sqlite',
    async all<P, R>(statement: Statement<P, R>, given: P) {
      return guarded(path, () => {
        let one = prepared.get(statement as Statement<never, unknown>);
        if (one === undefined) {
          one = db.prepare(statement.text('sqlite'));
          prepared.set(statement as Statement<never, unknown>, one);
        }
        return one.all(...(statement.bind('sqlite', given) as SqlValue[])) as R[];
      });
    },
    async run(text) {
      guarded(path, () => db.exec(text));
    },
  };
}

function guarded<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw sqliteFault(error, path);
  }
}

/**
 * What went wrong, in a sentence. Result codes: https://sqlite.org/rescode.html
 * @param error what node:sqlite or node:fs threw
 */
export function sqliteFault(error: unknown, path: string): Fault {
  if (error instanceof Fault) return error;
  const { errcode, code, message } = error as { errcode?: number; code?: string; message?: string };
  const extras = { detail: `${code ?? ''} ${errcode ?? ''} ${message ?? String(error)}`.trim(), cause: error };
  const database = `the database ${quote(path)}`;
  switch (errcode === undefined ? code : errcode & 0xff) {
    case 5: // SQLITE_BUSY
    case 6: // SQLITE_LOCKED
      return new Fault('peer/unavailable', `${database} is in use by another process`, {
        ...extras,
        hint: 'Stop the other server. For several servers on one database use postgres://.',
      });
    case 8: // SQLITE_READONLY
    case 'EROFS':
      return new Fault('system/failed', `${database} cannot be written: it is read-only`, extras);
    case 10: // SQLITE_IOERR
    case 'EIO':
      // SQLite finds a file system that is read-only only when it maps the file, and then knows no better word.
      if (isReadOnly(path)) return new Fault('system/failed', `${database} cannot be written: it is read-only`, extras);
      return new Fault('system/failed', `${database} cannot be read or written: the disk reports an error`, extras);
    case 11: // SQLITE_CORRUPT
    case 26: // SQLITE_NOTADB
      return new Fault('data/corrupt', `${database} is damaged or is not a database`, {
        ...extras,
        hint: 'Restore it from a backup.',
      });
    case 13: // SQLITE_FULL
    case 'ENOSPC':
    case 'EDQUOT':
      return new Fault('system/failed', `${database} cannot grow: the disk is full`, extras);
    case 14: // SQLITE_CANTOPEN
    case 'EACCES':
    case 'EPERM':
    case 'EISDIR':
    case 'ENOTDIR':
    case 'EEXIST':
      return new Fault('system/failed', `${database} cannot be opened`, {
        ...extras,
        hint: 'Check that its directory exists and that this user may write there.',
      });
    default:
      return new Fault('system/failed', `${database} failed`, extras);
  }
}

/** Whether the file system of this path takes no writes. */
function isReadOnly(path: string): boolean {
  try {
    accessSync(dirname(path), constants.W_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EROFS';
  }
}
