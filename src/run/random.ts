/** Randomness as a port. */
import { randomBytes, randomUUID } from 'node:crypto';

export interface Random {
  /** Cryptographically strong bytes. */
  bytes(length: number): Buffer;
  /** A number in [0, 1) for jitter; never for secrets. */
  unit(): number;
  /** A version 4 UUID, lower case. */
  uuid(): string;
}

export const systemRandom: Random = {
  bytes: (length) => randomBytes(length),
  unit: () => Math.random(),
  uuid: () => randomUUID(),
};
