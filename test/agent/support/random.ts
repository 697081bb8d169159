/** Randomness that a test knows: jitter in the middle unless told otherwise. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Random } from '../../../src/run/random.ts';

export function middling(units: readonly number[] = []): Random {
  const left = [...units];
  return { bytes: (length) => randomBytes(length), unit: () => left.shift() ?? 0.5, uuid: () => randomUUID() };
}
