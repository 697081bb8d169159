/**
 * Back-pressure by bytes: what requests hold at a time that have not been answered. A connection may have hundreds of
 * streams with megabytes each, so that a bound for each of them alone would let a few callers take all memory.
 */
import { Fault } from '../errors.ts';

export interface RequestBytes {
  /** Whether so many more bytes may be held; they are, unless it gives false. */
  take(bytes: number): boolean;
  give(bytes: number): void;
}

/** What is told to a request that there is no room for. */
export const noRoom: Fault = new Fault('limit/exceeded', 'too much is asked at a time: requests wait for memory', {
  hint: 'Try again later.',
  retryAfterMs: 1_000,
});

/** @param most bytes held at a time */
export function requestBytes(most: number): RequestBytes {
  let held = 0;
  return {
    take(bytes) {
      if (held + bytes > most) return false;
      held += bytes;
      return true;
    },
    give(bytes) {
      held -= bytes;
    },
  };
}
