/** The latest refusals, so that an operator finds out why a workload got nothing without reading the log. */
import type { Fault, FaultCode } from '../src/errors.ts';
import type { Call } from '../src/rpc/serve.ts';

export interface Refusal {
  /** Unix milliseconds. */
  readonly at: number;
  /** The path of the call. */
  readonly method: string;
  /** Of the process that called; 0 for a broker. */
  readonly pid: number;
  readonly uid: number;
  /** The SPIFFE ID of the broker that called, or else its address, or `unknown`; empty for a process. */
  readonly broker: string;
  /** What the caller was told. */
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
        ({ method, uid, broker, message }) =>
          method === refusal.method && uid === refusal.uid && broker === refusal.broker && message === refusal.message,
      );
      if (same >= 0) kept.splice(same, 1);
      kept.unshift(refusal);
      if (kept.length > most) kept.pop();
    },
    latest: () => kept,
  };
}

/** @param at Unix milliseconds */
export function refusalOf({ method, caller }: Call, fault: Fault, at: number): Refusal {
  const told = { at, method, message: fault.message, code: fault.code, hint: fault.hint ?? '' };
  if (caller.kind === 'unix') return { ...told, pid: caller.peer.pid, uid: caller.peer.uid, broker: '' };
  return { ...told, pid: 0, uid: 0, broker: caller.svid?.id ?? (caller.address || 'unknown') };
}
