import type { Revocation } from './store.ts';

/** The name of a revocation in the log and in memory. */
export const revocationKey = ({ kind, value }: Pick<Revocation, 'kind' | 'value'>): string => `${kind}:${value}`;
