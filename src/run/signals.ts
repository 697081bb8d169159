/**
 * What signals ask of a program that runs until it is told to stop. All are heard from the beginning: by itself SIGHUP ends a
 * process, and any of them may come while a program still starts.
 */
import type { EventEmitter } from 'node:events';
import { type Clock, sleep } from './clock.ts';

export interface Running {
  /** Resolves after close; rejects when the program cannot go on. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

export interface Asked {
  /** SIGUSR2. */
  reopen(): void;
  /** SIGHUP. */
  reload(): void;
  /** SIGINT or SIGTERM, before it is obeyed. */
  stopping(signal: NodeJS.Signals): void;
}

/**
 * How long a start may go on after it was told to stop, milliseconds: an agent whose token was just taken has its identity
 * then, and one that waits for its server is not waited for.
 */
const grace = 2_000;

/** Resolves when the program has ended because it was told to. Throws what keeps it from starting or going on. */
export async function untilStopped(
  started: Promise<Running>,
  asked: Asked,
  clock: Clock,
  signals: EventEmitter = process,
): Promise<void> {
  const { promise: stopped, resolve } = Promise.withResolvers<void>();
  const stop = (signal: NodeJS.Signals): void => {
    asked.stopping(signal);
    resolve();
  };
  const heard = { SIGUSR2: asked.reopen, SIGHUP: asked.reload, SIGINT: stop, SIGTERM: stop };
  for (const [signal, act] of Object.entries(heard)) signals.on(signal, act);
  try {
    // What it fails with after it was given up is of no more use to anybody.
    started.catch(() => {});
    const program = await Promise.race([started, stopped.then(() => sleep(clock, grace))]);
    if (program === undefined) return;
    void stopped.then(() => program.close());
    try {
      await program.closed;
    } finally {
      await program.close();
    }
  } finally {
    for (const [signal, act] of Object.entries(heard)) signals.off(signal, act);
  }
}
