/**
 * The thread that holds a SQLite database. A commit blocks until the disk has it, so it happens here and not where
 * connections are served; what arrives while one is under way is committed together by the next.
 */
import { parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { asFault, type Fault } from '../../src/errors.ts';
import { collect, toCollect } from '../../src/run/collect.ts';
import { type Head, readHead } from './log.ts';
import { type Migrated, migrate } from './migrations/migrate.ts';
import { type OperationName, reads, writes } from './operations.ts';
import { openSqlite, type SqliteDatabase } from './sqlite-session.ts';
import type { Session } from './statement.ts';
import { commitTogether, type Outcome, type Sized, type Write } from './transaction.ts';

export interface WorkerStart {
  readonly path: string;
  readonly waitMs: number;
  readonly logId: string;
  readonly migrate: boolean;
}
export interface Question {
  readonly id: number;
  readonly name: OperationName | 'close';
  readonly given: readonly unknown[];
}
/** A fault as plain data. */
export interface FaultData {
  readonly code: Fault['code'];
  readonly message: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
}
export type Answer = { readonly id: number } & ({ readonly value: unknown } | { readonly fault: FaultData });
export type FromWorker =
  | { readonly kind: 'opened'; readonly head: Head; readonly schema: Migrated }
  | { readonly kind: 'refused'; readonly fault: FaultData }
  | { readonly kind: 'done'; readonly answers: readonly Answer[]; readonly changes: readonly Sized[] };

/** How many writes one transaction takes at most, so that the first of them does not wait long for the last. */
const mostTogether = 256;

// biome-ignore lint/suspicious/noExplicitAny: the arguments were checked against the table where the question was asked
type Operation = (session: any, ...given: any[]) => Promise<unknown>;

const tell = (message: FromWorker): void => parentPort!.postMessage(message);

function faultData(fault: Fault): FaultData {
  return { code: fault.code, message: fault.message, detail: fault.detail, hint: fault.hint };
}

function answer(id: number, outcome: Outcome): Answer {
  return 'fault' in outcome ? { id, fault: faultData(outcome.fault) } : { id, value: outcome.value };
}

async function answerWrites(session: Session, asked: readonly Question[]): Promise<void> {
  const jobs = asked.map(
    ({ name, given }): Write =>
      (tx) =>
        (writes as Record<string, Operation>)[name]!(tx, ...given),
  );
  const { outcomes, changes } = await commitTogether(session, jobs, 'begin immediate');
  tell({ kind: 'done', answers: outcomes.map((outcome, i) => answer(asked[i]!.id, outcome)), changes });
}

async function answerRead(session: Session, { id, name, given }: Question): Promise<void> {
  let outcome: Outcome;
  try {
    outcome = { value: await (reads as Record<string, Operation>)[name]!(session, ...given) };
  } catch (error) {
    outcome = { fault: asFault(error) };
  }
  tell({ kind: 'done', answers: [answer(id, outcome)], changes: [] });
}

function serve(database: SqliteDatabase): void {
  const port = parentPort!;
  const waiting: Question[] = [];
  let busy = false;

  const take = (message: Question | typeof toCollect): void => {
    if (message !== toCollect) {
      waiting.push(message);
      return;
    }
    database.shrink();
    collect();
  };
  const takeAll = (): void => {
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      take(next.message);
    }
  };
  const work = async (): Promise<void> => {
    busy = true;
    for (takeAll(); waiting.length > 0; takeAll()) {
      const asked = waiting.splice(0, mostTogether);
      const toWrite = asked.filter(({ name }) => name in writes);
      if (toWrite.length > 0) await answerWrites(database.session, toWrite);
      for (const question of asked) if (question.name in reads) await answerRead(database.session, question);
      const close = asked.find(({ name }) => name === 'close');
      if (close !== undefined) {
        const outcome = attempt(() => database.close());
        tell({ kind: 'done', answers: [answer(close.id, outcome)], changes: [] });
        port.close();
        return;
      }
    }
    busy = false;
  };
  port.on('message', (message: Question | typeof toCollect) => {
    take(message);
    if (!busy) void work();
  });
}

function attempt(work: () => void): Outcome {
  try {
    return { value: work() };
  } catch (error) {
    return { fault: asFault(error) };
  }
}

async function start({ path, waitMs, logId, migrate: allowed }: WorkerStart): Promise<void> {
  let database: SqliteDatabase | undefined;
  try {
    database = openSqlite(path, waitMs);
    await database.session.run('begin immediate');
    const schema = await migrate(database.session, logId, allowed);
    await database.session.run('commit');
    const head = await readHead(database.session);
    serve(database);
    tell({ kind: 'opened', head, schema });
  } catch (error) {
    attempt(() => database?.close());
    tell({ kind: 'refused', fault: faultData(asFault(error)) });
  }
}

// What to open is said when it is known, which may be after the thread has come up.
parentPort!.once('message', (given: WorkerStart) => void start(given));
