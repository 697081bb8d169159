/** The messages of a gRPC stream as an async iterator which takes one at a time and leaves the sending side open. */
import type { Readable } from 'node:stream';

/**
 * @param failure what iteration throws when the stream breaks off
 * @param left called when the reader stops before the end
 */
export function messagesOf<T>(
  stream: Readable,
  failure: (error: unknown) => unknown,
  left: () => void,
): AsyncIterableIterator<T> {
  let waiting: { resolve(result: IteratorResult<T>): void; reject(error: unknown): void } | undefined;
  let over: { error?: unknown } | undefined;
  const finish = (end: { error?: unknown }): void => {
    over ??= end;
    deliver();
  };
  // The stream's own iterator destroys it when a loop is left, and with it the other direction: hence this one.
  const deliver = (): void => {
    if (waiting === undefined) return;
    // What arrived before the stream broke off is still there to read.
    const message: T | null = stream.read();
    if (message === null && over === undefined) return;
    const { resolve, reject } = waiting;
    waiting = undefined;
    if (message !== null) resolve({ done: false, value: message });
    else if (over?.error === undefined) resolve({ done: true, value: undefined });
    else reject(failure(over.error));
  };
  stream.on('readable', deliver);
  // When the other side dies, HTTP/2 ends the stream first and breaks it off after: one turn tells the two apart.
  let ended = false;
  stream.on('end', () => {
    ended = true;
    setImmediate(finish, {});
  });
  stream.on('error', (error) => finish({ error }));
  stream.on('cancelled', () => finish({ error: new Error('the call was cancelled') }));
  stream.on('close', () => {
    if (!ended) finish({ error: new Error('the stream was closed') });
  });
  return {
    next() {
      if (waiting !== undefined)
        return Promise.reject(new Error('next() called again before the last one was answered'));
      const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<T>>();
      waiting = { resolve, reject };
      deliver();
      return promise;
    },
    return() {
      if (over === undefined) left();
      finish({});
      return Promise.resolve({ done: true, value: undefined });
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
