/**
 * Threads that issue SVIDs beside the first one: each takes whole certificates (read the request, verify it, build, sign)
 * and tokens. What they are given, and in which order, is bounded; what finds no room, what they refuse and what a thread
 * had when it ended is done by the first thread, as without workers. Only keys of this process's own memory are handed on.
 */
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import { askToCollect } from '../../src/run/collect.ts';
import type { Random } from '../../src/run/random.ts';
import type { JwtSigner } from '../authority/jwt.ts';
import type { X509Signer } from '../authority/x509.ts';
import type { JwtProfile } from './jwt.ts';
import type {
  FromWorker,
  Job,
  Outcome,
  SignerData,
  SigningRules,
  ToWorker,
  X509Done,
  X509Job,
} from './signing-jobs.ts';
import type { IssuedToken } from './token.ts';
import type { IssuedX509Svid } from './x509.ts';

export interface X509Asked extends Pick<X509Job, 'entry' | 'ttl' | 'now'> {
  readonly csr: Buffer;
}
export type IssuedAside = IssuedX509Svid & Pick<X509Done, 'id'>;

/**
 * Each begins a job in a worker. Undefined when it is better done here: there is no room, the key cannot be handed on, or
 * nothing else is under way. The promise gives undefined when it has to be done here after all.
 */
export interface SigningWorkers {
  x509(signer: X509Signer, asked: X509Asked): Promise<IssuedAside | undefined> | undefined;
  jwt(signer: JwtSigner, profile: JwtProfile, now: number): Promise<IssuedToken | undefined> | undefined;
  close(): Promise<void>;
}

/** Jobs that a worker owes at most: some milliseconds' worth. */
const most = 64;
/** Of a request; a longer one is refused here. */
const longestCsr = 16_384;
/** A worker that ended is replaced after this long, twice that if it ended soon again, and so on. Milliseconds. */
const [shortestPause, longestPause] = [1_000, 60_000];

interface Thread {
  readonly worker: Worker;
  readonly knows: WeakSet<object>;
  /** What it owes, oldest first. */
  readonly owed: ((outcome: Outcome) => void)[];
  signers: SignerData[];
  jobs: Job[];
}

export interface SigningPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly forTests?: SigningForTests | undefined;
}

export interface SigningForTests {
  /** Starts a thread, as `startThread` does. */
  readonly newThread?: (rules: SigningRules) => Worker;
  /** Whether a call that is alone goes to a thread too. */
  readonly always?: boolean;
}

/** Starts the threads. They keep nothing alive. @param count 1 or more */
export function signingWorkers(
  count: number,
  rules: SigningRules,
  { clock, random, log, forTests: { newThread = startThread, always = false } = {} }: SigningPorts,
): SigningWorkers {
  const threads = new Set<Thread>();
  const numbers = new WeakMap<object, number>();
  const pauses = new Set<() => void>();
  let lastNumber = 0;
  let isClosing = false;
  /** Jobs that are owed by all threads together. */
  let underWay = 0;
  /** Whether something was begun in this turn of the loop, here or in a thread. */
  let isTurn = false;

  function start(pause: number): void {
    const worker = newThread(rules);
    const thread: Thread = { worker, knows: new WeakSet(), owed: [], signers: [], jobs: [] };
    const since = clock.now();
    threads.add(thread);
    worker.on('message', (outcomes: FromWorker) => {
      underWay -= outcomes.length;
      for (const [at, settle] of thread.owed.splice(0, outcomes.length).entries()) settle(outcomes[at]);
    });
    // What cannot be read would be owed for ever.
    worker.on('messageerror', () => void worker.terminate());
    let why = '';
    worker.on('error', (error) => {
      why = String(error);
    });
    worker.once('exit', () => {
      threads.delete(thread);
      const left = thread.owed.splice(0);
      underWay -= left.length;
      if (!isClosing) {
        log.error(
          { message: why, count: left.length },
          'signing worker ended; what it had is done by the first thread',
        );
        again(clock.now() - since > longestPause ? shortestPause : pause);
      }
      for (const settle of left) settle(undefined);
    });
    worker.unref();
    askToCollect(worker);
  }

  function again(pause: number): void {
    const cancel = clock.after(pause, () => {
      pauses.delete(cancel);
      start(Math.min(2 * pause, longestPause));
    });
    pauses.add(cancel);
  }

  /** The one that owes least, if it has room. */
  function freest(): Thread | undefined {
    let found: Thread | undefined;
    for (const thread of threads) if (found === undefined || thread.owed.length < found.owed.length) found = thread;
    return found !== undefined && found.owed.length < most ? found : undefined;
  }

  function send(): void {
    isTurn = false;
    for (const thread of threads) {
      if (thread.jobs.length === 0) continue;
      thread.worker.postMessage({ signers: thread.signers, jobs: thread.jobs } satisfies ToWorker);
      thread.signers = [];
      thread.jobs = [];
    }
  }

  function begin(signer: X509Signer | JwtSigner, jobOf: (number: number) => Job): Promise<Outcome> | undefined {
    const { keyObject } = signer.key;
    const thread = keyObject && freest();
    if (thread === undefined) return undefined;
    const isFirst = !isTurn;
    if (isFirst) {
      isTurn = true;
      setImmediate(send);
    }
    // One call alone has its answer sooner from here: to a thread and back takes as long as a signature.
    if (isFirst && underWay === 0 && !always) return undefined;
    let number = numbers.get(signer);
    if (number === undefined) {
      number = ++lastNumber;
      numbers.set(signer, number);
    }
    if (!thread.knows.has(signer)) {
      thread.knows.add(signer);
      thread.signers.push(signerData(signer, keyObject as NonNullable<typeof keyObject>, number));
    }
    thread.jobs.push(jobOf(number));
    underWay += 1;
    return new Promise((resolve) => thread.owed.push(resolve));
  }

  for (let n = 0; n < count; n++) start(shortestPause);
  return {
    x509(signer, { csr, entry, ttl, now }) {
      if (csr.length > longestCsr) return undefined;
      const done = begin(signer, (number) => ({
        ...{ kind: 'x509', signer: number, entry, ttl, now },
        // Copies: of a view the whole memory that it is of would be sent.
        csr: Uint8Array.from(csr),
        drawn: Uint8Array.from(random.bytes(16)),
      })) as Promise<X509Done | undefined> | undefined;
      return done?.then((issued) => issued && withChain(issued, signer));
    },
    jwt(signer, profile, now) {
      return begin(signer, (number) => ({ kind: 'jwt', signer: number, profile, now })) as
        | Promise<IssuedToken | undefined>
        | undefined;
    },
    async close() {
      isClosing = true;
      for (const cancel of pauses) cancel();
      await Promise.all([...threads].map(({ worker }) => worker.terminate()));
    },
  };
}

function withChain({ id, certificate, notBefore, notAfter, serial }: X509Done, { chain }: X509Signer): IssuedAside {
  const { buffer, byteOffset, byteLength } = certificate;
  return { id, chain: [Buffer.from(buffer, byteOffset, byteLength), ...chain], notBefore, notAfter, serial };
}

function signerData(signer: X509Signer | JwtSigner, key: SignerData['key'], number: number): SignerData {
  const { notAfter } = signer;
  if ('keyId' in signer)
    return { kind: 'jwt', number, key, notAfter, keyId: signer.keyId, algorithm: signer.algorithm };
  return {
    ...{ kind: 'x509', number, key, notAfter, authorityId: signer.authorityId },
    certificate: Uint8Array.from(signer.certificate.der),
    chain: signer.chain.map((one) => Uint8Array.from(one)),
  };
}

export function startThread(rules: SigningRules): Worker {
  const cache = getCompileCacheDir();
  return new Worker(file(), {
    name: 'signing',
    workerData: rules,
    // Nothing of this process's environment, where secrets may be, but where compiled code is kept.
    env: cache === undefined ? {} : { NODE_COMPILE_CACHE: dirname(cache) },
    argv: [],
    resourceLimits: { maxYoungGenerationSizeMb: 8 },
  });
}

/** It lies beside this file, in the source and in a bundle. */
function file(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './signing-worker.ts' : './signing-worker.cjs', import.meta.url);
}
