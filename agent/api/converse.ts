/**
 * A stream on which both sides speak: the caller says what it wants and what it thinks of the last answer, the agent
 * answers when that or its own state has changed. One request is looked at and one answer sent at a time, so that a caller
 * who writes without reading, or faster than is of any use, is held back by its own transport.
 */
import type { Call, Encoded, Send } from '../../src/rpc/serve.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';

export interface Conversation<Request> {
  /** Takes in a request. What it throws ends the stream. */
  take(request: Request): void;
  /** What is to be said now; undefined when nothing is. What it throws ends the stream. */
  say(): Encoded | undefined;
}

export interface ConversePorts {
  readonly clock: Clock;
  /** Calls `told` after each change of what `say` speaks of, until the returned function is called. */
  follow(told: () => void): () => void;
  /** Told once when the caller does not take an answer for long. */
  onUnread(): void;
  /** Told once when the caller sends more requests than are read. */
  onHeldBack(): void;
}

/** An answer that waits this long is worth a line in the log, milliseconds. */
const unread = 30_000;
/** Requests that are read at once, and how many more each second: a proxy of hundreds of secrets never gets there. */
const burst = 200;
const each = 1_000 / 50;

/** Resolves when the caller has said all and was answered; rejects when it goes away or the conversation throws. */
export async function converse<Request>(
  requests: AsyncIterable<Request>,
  call: Call,
  send: Send,
  conversation: Conversation<Request>,
  ports: ConversePorts,
): Promise<void> {
  const { clock } = ports;
  const { signal } = call;
  let inbox: { request: Request; taken(): void } | undefined;
  let over: { failed: boolean; error?: unknown } | undefined;
  let changed = false;
  let left = false;
  let wake = (): void => {};

  const read = async (): Promise<void> => {
    const wait = bucket(clock, once(ports.onHeldBack));
    for await (const request of requests) {
      const ms = wait();
      if (ms > 0) await sleep(clock, ms, signal);
      const { promise, resolve } = Promise.withResolvers<void>();
      inbox = { request, taken: resolve };
      wake();
      await promise;
      if (left) return;
    }
  };
  void read()
    .then(
      () => (over = { failed: false }),
      (error: unknown) => (over = { failed: true, error }),
    )
    .then(() => wake());

  const onUnread = once(ports.onUnread);
  const deliver = async (message: Encoded): Promise<void> => {
    const cancel = clock.after(unread, onUnread);
    try {
      await send(message);
    } finally {
      cancel();
    }
  };

  const unfollow = ports.follow(() => {
    changed = true;
    wake();
  });
  const onAbort = (): void => wake();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (;;) {
      if (signal.aborted) throw signal.reason;
      // Before anything is looked at, so that whatever comes meanwhile is seen.
      const { promise: woken, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const letter = inbox;
      inbox = undefined;
      if (letter !== undefined) {
        letter.taken();
        conversation.take(letter.request);
      } else if (!changed && over !== undefined) {
        if (over.failed) throw over.error;
        return;
      }
      if (letter !== undefined || changed) {
        changed = false;
        const message = conversation.say();
        if (message !== undefined) await deliver(message);
      } else {
        await woken;
      }
    }
  } finally {
    left = true;
    unfollow();
    signal.removeEventListener('abort', onAbort);
    inbox?.taken();
  }
}

/** How long the next request is left unread, milliseconds. */
function bucket(clock: Clock, onEmpty: () => void): () => number {
  let fullAt = 0;
  return () => {
    const now = clock.now();
    fullAt = Math.max(fullAt, now) + each;
    const wait = fullAt - now - burst * each;
    if (wait > 0) onEmpty();
    return wait;
  };
}

function once(tell: () => void): () => void {
  let told = false;
  return () => {
    if (!told) tell();
    told = true;
  };
}
