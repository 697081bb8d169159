import type { Fault } from '../errors.ts';

/** Exponential backoff as a pure step. */
export interface Backoff {
  /** First delay, milliseconds. */
  first: number;
  /** Largest delay, milliseconds. */
  most: number;
  factor: number;
}

/** The delay before attempt `failures + 1`, spread by ±10 % with `unit` in [0, 1). */
export function backoffDelay(policy: Backoff, failures: number, unit: number): number {
  const plain = Math.min(policy.first * policy.factor ** Math.max(failures - 1, 0), policy.most);
  return Math.round(plain * (0.9 + 0.2 * unit));
}

/** The same after a refusal: a server that said when it can is believed, since asking sooner only adds to what it has to do. */
export function delayAfter(refusal: Fault | undefined, policy: Backoff, failures: number, unit: number): number {
  return Math.max(backoffDelay(policy, failures, unit), refusal?.retryAfterMs ?? 0);
}
