/**
 * A write in progress, and the commit of several together. Everything that writes is a function of a Transaction; its
 * changes are appended to the log before the transaction ends, under numbers that nobody else can be given meanwhile.
 */
import { asFault, type Fault } from '../../src/errors.ts';
import { changeRow } from './change-row.ts';
import { insert, type Session, statement } from './statement.ts';
import type { Change } from './store.ts';

/** A change without its number. `Omit` alone would merge the kinds. */
export type ChangeBody = Change extends infer C ? (C extends Change ? Omit<C, 'position'> : never) : never;

export interface Transaction extends Session {
  /** Adds a change and gives its position, which also serves as the `seq` of what it creates. */
  append(body: ChangeBody): number;
  /** The position that the next `append` will give. */
  readonly next: number;
}

export type Write = (tx: Transaction) => Promise<unknown>;
export type Outcome = { readonly value: unknown } | { readonly fault: Fault };

/** A change with the length of its text, which stands for the memory it takes. */
export interface Sized {
  readonly change: Change;
  readonly size: number;
}

export interface Committed {
  /** In the order of the writes. */
  readonly outcomes: readonly Outcome[];
  readonly changes: readonly Sized[];
}

/**
 * Locks the head of the log. On PostgreSQL the row lock is held until the transaction ends, so writers of all servers
 * take turns: numbers are given in commit order without gaps, and what a write has read cannot change under it. SQLite
 * has one writer anyway.
 */
const lockHead = statement<Record<string, never>, { position: number }>((db, _, engine) => {
  const query = db.selectFrom('log_head').select('position').where('one', '=', 1);
  return engine === 'postgres' ? query.forUpdate() : query;
});
const moveHead = statement<{ position: number }, unknown>((db, slot) =>
  db
    .updateTable('log_head')
    .set({ position: slot('position') })
    .where('one', '=', 1),
);

/**
 * Runs writes in one transaction, each in a savepoint of its own, so that one disk flush serves them all and one that
 * fails takes nothing with it. When the transaction as a whole fails, every outcome is that failure.
 * @param begin text that opens a transaction for writing; none when it is open already
 * @param commit text that commits a transaction that changed something
 */
export async function commitTogether(
  session: Session,
  writes: readonly Write[],
  begin: string | undefined,
  commit = 'commit',
): Promise<Committed> {
  const outcomes: Outcome[] = [];
  const changes: Sized[] = [];
  try {
    if (begin !== undefined) await session.run(begin);
    const head = await session.all(lockHead, {});
    const first = head[0]!.position;
    for (const write of writes) outcomes.push(await runOne(session, write, first, changes, writes.length > 1));
    // A lone write that failed has no savepoint to go back to.
    if (writes.length === 1 && 'fault' in outcomes[0]!) {
      await rollBack(session);
      return { outcomes, changes: [] };
    }
    if (changes.length > 0) {
      const position = first + changes.length;
      await session.all(moveHead, { position });
    }
    await session.run(changes.length > 0 ? commit : 'commit');
    return { outcomes, changes };
  } catch (error) {
    await rollBack(session);
    const fault = asFault(error);
    return { outcomes: writes.map(() => ({ fault })), changes: [] };
  }
}

async function runOne(
  session: Session,
  write: Write,
  first: number,
  changes: Sized[],
  savepoint: boolean,
): Promise<Outcome> {
  const own: Change[] = [];
  const tx: Transaction = {
    engine: session.engine,
    all: session.all,
    run: session.run,
    append(body) {
      const position = tx.next;
      own.push({ position, ...body } as Change);
      return position;
    },
    get next() {
      return first + changes.length + own.length + 1;
    },
  };
  if (savepoint) await session.run('savepoint one_write');
  try {
    const value = await write(tx);
    const rows = own.map(changeRow);
    await insert(session, 'changes', rows);
    if (savepoint) await session.run('release savepoint one_write');
    for (const [i, change] of own.entries()) changes.push({ change, size: (rows[i]!.value?.length ?? 0) + 200 });
    return { value };
  } catch (error) {
    // When the engine has given up the whole transaction (a full disk), this throws and every write of the group fails.
    if (savepoint) {
      await session.run('rollback to savepoint one_write').catch(() => Promise.reject(error));
      await session.run('release savepoint one_write');
    }
    return { fault: asFault(error) };
  }
}

async function rollBack(session: Session): Promise<void> {
  // Fails when the engine has rolled back by itself or the connection is gone: either way nothing is left to undo.
  await session.run('rollback').catch(() => {});
}
