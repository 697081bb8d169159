/** A stream of messages that is opened again whenever it ends, after a pause that grows while nothing comes. */
import { type Backoff, backoffDelay } from './backoff.ts';
import { type Clock, sleep } from './clock.ts';
import type { Random } from './random.ts';

export interface Following<Message> {
  /** Opens the stream, each time anew. */
  open(): AsyncIterable<Message>;
  /** What it throws counts as a failure of the stream. */
  take(message: Message): void;
  /** Told of each end and failure of a stream, undefined for an end without an error. What it throws ends the following. */
  ended?(error: unknown): void;
  readonly backoff: Backoff;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Waits before the stream is opened again; without it, a sleep that only the signal ends. */
  pause?(ms: number): Promise<void>;
}

/** Follows until the signal is aborted, and then rejects with its reason; or with what `ended` throws. */
export async function follow<Message>(following: Following<Message>): Promise<never> {
  const { backoff, clock, random, signal } = following;
  const pause = following.pause ?? ((ms: number) => sleep(clock, ms, signal));
  for (let failures = 0; ; ) {
    let why: unknown;
    try {
      for await (const message of following.open()) {
        following.take(message);
        failures = 0;
      }
    } catch (error) {
      why = error;
    }
    signal.throwIfAborted();
    following.ended?.(why);
    failures++;
    await pause(backoffDelay(backoff, failures, random.unit()));
    signal.throwIfAborted();
  }
}
