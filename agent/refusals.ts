/** The latest refusals, so that an operator finds out why a workload got nothing without reading the log. */
import type { FaultCode } from '../src/errors.ts';

export interface Refusal {
  /** Unix milliseconds. */
  readonly at: number;
  /** The path of the call. */
  readonly method: string;
  readonly pid: number;
  readonly uid: number;
  /** What the workload was told. */
  readonly message: string;
  readonly code: FaultCode;
  readonly hint: string;
}

export interface Refusals {
  note(refusal: Refusal): void;
  /** Newest first. */
  latest(): readonly Refusal[];
}

/** Kept at most. One that repeats the one before takes its place, so that a loop drives nothing else out. */
const most = 20;

export function refusals(): Refusals {
  const kept: Refusal[] = [];
  return {
    note(refusal) {
      const same = kept.findIndex(
        ({ method, uid, message }) => method === refusal.method && uid === refusal.uid && message === refusal.message,
      );
      if (same >= 0) kept.splice(same, 1);
      kept.unshift(refusal);
      if (kept.length > most) kept.pop();
    },
    latest: () => kept,
  };
}
