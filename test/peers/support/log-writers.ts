/**
 * Writers of the change log in a thread of their own, so that what follows the log in the test's thread does not hold them
 * up in the middle of a transaction. Each round is one transaction of one write or three; some dawdle when they have their
 * number already, some give it back.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { connections } from '../../../server/store/postgres-session.ts';
import { commitTogether, type Write } from '../../../server/store/transaction.ts';
import type { TrustDomain } from '../../../src/spiffe/id.ts';

interface Work {
  readonly url: string;
  readonly rounds: number;
  readonly writers: number;
}

/** Runs the rounds; resolves with the number of transactions that the database committed. */
export function writeRounds(work: Work): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const worker = new Worker(new URL(import.meta.url), { workerData: work });
  worker.on('message', resolve).on('error', reject);
  worker.on('exit', () => reject(new Error('the writers ended without a word')));
  return promise;
}

async function write({ url, rounds, writers }: Work): Promise<number> {
  const pool = connections(url);
  const one =
    (dawdle: boolean, fail: boolean): Write =>
    async (tx) => {
      tx.append({ kind: 'federation', trustDomain: 'example.org' as TrustDomain });
      if (dawdle) await tx.run('select pg_sleep(random() * 0.002)');
      if (fail) throw new Error('given up on purpose');
    };
  let begun = 0;
  let committed = 0;
  const writer = async (_: unknown, own: number): Promise<void> => {
    while (begun < rounds) {
      const round = begun++;
      // Most are as short as can be, for their number is what counts here.
      const writes = Array.from({ length: round % 8 === 0 ? 3 : 1 }, (_, i) =>
        one(round % 8 === 0, (round + i) % 5 === 0),
      );
      // Most tell nobody, as a server that dies right after its commit.
      const commit = own === 0 ? 'notify mutual_log; commit' : undefined;
      const { changes } = await pool.use('begin isolation level read committed', (session) =>
        commitTogether(session, writes, undefined, commit),
      );
      if (changes.length > 0) committed += 1;
    }
  };
  await Promise.all(Array.from({ length: writers }, writer));
  await pool.close();
  return committed;
}

if (!isMainThread) parentPort!.postMessage(await write(workerData as Work));
