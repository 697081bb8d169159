/** The embedded store, seen from the main thread: it asks the worker that holds the database, and remembers the log's end. */
import type { Worker } from 'node:worker_threads';
import { asFault, Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { askToCollect } from '../../src/run/collect.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { bounded, oneAtATime } from './bounded.ts';
import { withBuffers } from './bundle-text.ts';
import type { Head } from './log.ts';
import type { Migrated } from './migrations/migrate.ts';
import type { Ask, OperationName } from './operations.ts';
import { portsOver } from './ports.ts';
import { type Recent, recentChanges } from './recent.ts';
import type { FaultData, FromWorker, Question, WorkerStart } from './sqlite-worker.ts';
import type { Change, Store } from './store.ts';
import { takeThread } from './thread.ts';
import type { Sized } from './transaction.ts';
import { writeHealth } from './write-health.ts';
import { isWrite } from './write-names.ts';

interface Waiting {
  resolve(value: unknown): void;
  reject(fault: Fault): void;
}

/**
 * Opens a SQLite database in a worker of its own. Throws what `openSqlite` throws.
 * The worker keeps the process alive only while it owes an answer.
 */
export async function openSqliteStore(start: WorkerStart, clock: Clock): Promise<Store> {
  const worker = takeThread();
  const opening = opened(worker);
  worker.postMessage(start);
  const { head, schema } = await opening;
  askToCollect(worker);
  const recent = recentChanges(head.position);
  const { ask: askPlainly, close } = askWorker(worker, recent);
  const health = writeHealth(clock);
  const ask = bounded((async (name: OperationName, ...given: unknown[]) => {
    const work = (askPlainly as (name: OperationName, ...given: unknown[]) => Promise<unknown>)(name, ...given);
    if (!isWrite(name)) return await work;
    try {
      const value = await work;
      health.worked();
      return value;
    } catch (error) {
      health.failed(asFault(error));
      throw error;
    }
  }) as Ask);
  const ports = portsOver(ask);
  const ping = oneAtATime(() => askPlainly('ping'));
  return {
    ...ports,
    async ping() {
      await ping();
      health.check();
    },
    schema,
    log: {
      id: head.logId,
      position: async () => recent.newest,
      oldest: async () => (await ask('readHead')).oldest,
      read: async (after, limit) =>
        recent.read(after, limit) ?? (await ask('readChanges', after, limit)).map(({ change }) => change),
      onAppend: recent.onAppend,
      prune: (position) => ask('pruneChanges', position),
      renew: (id) => ask('renewLog', head.logId, id),
      // One process holds the file: nobody else can change what is in it.
      onBroken: () => () => {},
    },
    close,
  };
}

async function opened(worker: Worker): Promise<{ head: Head; schema: Migrated }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ head: Head; schema: Migrated }>();
  const onMessage = (message: FromWorker): void => {
    if (message.kind === 'opened') resolve(message);
    else if (message.kind === 'refused') reject(thrown(message.fault));
  };
  const onError = (error: unknown): void => reject(failed(error));
  const onExit = (): void => reject(failed('it ended before the database was open'));
  worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  try {
    return await promise;
  } catch (error) {
    await worker.terminate();
    throw error;
  } finally {
    worker.off('message', onMessage).off('error', onError).off('exit', onExit);
  }
}

function askWorker(worker: Worker, recent: Recent): { ask: Ask; close: () => Promise<void> } {
  const waiting = new Map<number, Waiting>();
  let asked = 0;
  let ended: Fault | undefined;
  let closing: Promise<void> | undefined;

  const settle = (id: number): Waiting | undefined => {
    const one = waiting.get(id);
    waiting.delete(id);
    if (waiting.size === 0) worker.unref();
    return one;
  };
  const end = (fault: Fault): void => {
    ended ??= fault;
    for (const id of [...waiting.keys()]) settle(id)?.reject(ended);
  };
  worker.on('message', (message: FromWorker) => {
    if (message.kind !== 'done') return;
    // First the log, then the answers: whoever's write has resolved finds it in the log.
    try {
      recent.append(message.changes.map(revived));
    } finally {
      for (const answer of message.answers) {
        const one = settle(answer.id);
        if ('fault' in answer) one?.reject(thrown(answer.fault));
        else one?.resolve(answer.value);
      }
    }
  });
  worker.on('error', (error) => end(failed(error)));
  worker.on('exit', () => end(closed()));
  worker.unref();

  const post = (name: Question['name'], given: readonly unknown[]): Promise<unknown> => {
    if (ended !== undefined) return Promise.reject(ended);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    asked += 1;
    waiting.set(asked, { resolve, reject });
    if (waiting.size === 1) worker.ref();
    try {
      worker.postMessage({ id: asked, name, given } satisfies Question);
    } catch (error) {
      // What was given is not plain data: a defect of the caller.
      settle(asked)?.reject(asFault(error));
    }
    return promise;
  };
  const ask = (async (name: OperationName, ...given: unknown[]) => {
    if (closing !== undefined) throw ended ?? closed();
    return withBuffersIn(name, await post(name, given));
  }) as Ask;

  return {
    ask,
    close() {
      closing ??= (async () => {
        const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
        const done = post('close', []);
        worker.ref();
        await done;
        worker.ref();
        await gone;
      })();
      return closing;
    },
  };
}

/** Buffers arrive as Uint8Arrays; only bundles hold any. */
function withBuffersIn(name: OperationName, value: unknown): unknown {
  if (value === undefined) return value;
  if (name === 'getBundle') return withBuffers(value as Bundle);
  if (name === 'listBundles') return (value as Bundle[]).map(withBuffers);
  if (name === 'readChanges') return (value as Sized[]).map(revived);
  return value;
}

function revived(one: Sized): Sized {
  const { change } = one;
  if (change.kind !== 'bundle' || change.bundle === undefined) return one;
  return { ...one, change: { ...change, bundle: withBuffers(change.bundle) } satisfies Change };
}

function thrown({ code, message, detail, hint }: FaultData): Fault {
  return new Fault(code, message, { ...(detail !== undefined && { detail }), ...(hint !== undefined && { hint }) });
}

function closed(): Fault {
  return new Fault('peer/unavailable', 'the store is closed');
}

function failed(error: unknown): Fault {
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new Fault('system/failed', "the store's thread has ended", { detail, cause: error });
}
