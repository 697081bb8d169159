/** Names of an authority's keys: each says of what kind it is and when it was made, and there is never the same twice. */
import type { Random } from '../../src/run/random.ts';

/** @param now milliseconds */
export const newKeyName = (prefix: string, now: number, random: Random): string =>
  `${prefix}-${now.toString(16).padStart(12, '0')}${random.bytes(8).toString('hex')}`;

/** Unix milliseconds; 0 for a name from before they said so. */
export const madeAt = (name: string): number =>
  Number.parseInt(/-([0-9a-f]{12})[0-9a-f]{16}$/.exec(name)?.[1] ?? '0', 16);
