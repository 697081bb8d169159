/** A thread that issues SVIDs for the first one, a few at a time (server/issue/signing-workers.ts). */
import { parentPort, workerData } from 'node:worker_threads';
import { collect, toCollect } from '../../src/run/collect.ts';
import { type FromWorker, type Outcome, type SigningRules, signingTable, type ToWorker } from './signing-jobs.ts';

/** After so many jobs what is done is told: about a millisecond's worth. */
const atOnce = 8;

const port = parentPort!;
const table = signingTable(workerData as SigningRules);
let last = Promise.resolve();

async function work({ signers, jobs }: ToWorker): Promise<void> {
  for (const signer of signers) table.learn(signer);
  for (let at = 0; at < jobs.length; at += atOnce) {
    const outcomes: Outcome[] = [];
    for (const job of jobs.slice(at, at + atOnce)) outcomes.push(await table.work(job));
    port.postMessage(outcomes satisfies FromWorker);
  }
}

// What could not be read is not done; the first thread does it when this one has ended.
port.on('messageerror', (error) => {
  throw error;
});
port.on('message', (message: ToWorker | typeof toCollect) => {
  if (message === toCollect) collect();
  else last = last.then(() => work(message));
});
