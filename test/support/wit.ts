/** WIT-SVIDs and their proofs for tests: right unless a test asks for one thing to be wrong. */
import { createHash } from 'node:crypto';
import { type ClassicKeyType, classicKeyTypes, generateKey } from '../../src/crypto/algorithms.ts';
import { publicJwk } from '../../src/crypto/jwk.ts';
import { heldKey } from '../../src/keys/key-store.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { TestAuthority } from './ca.ts';

export interface TestWits {
  /** The bundle whose WIT key is the authority's JWT key, which is in it under no other use. */
  readonly bundle: Bundle;
  /** The JWK of `cnf`, with its algorithm. */
  readonly jwk: Record<string, unknown>;
  /** A token: undefined leaves a claim or a header member out. */
  wit(claims?: Record<string, unknown>, header?: Record<string, unknown>): string;
  /** A proof for a token, for audience "audience" and 30 s. */
  proof(wit: string, claims?: Record<string, unknown>, header?: Record<string, unknown>): string;
}

export function testWits(ca: TestAuthority, now: number, keyType: ClassicKeyType = 'ec-p256'): TestWits {
  const key = heldKey('workload', generateKey(keyType).privateKey);
  const { jwa } = classicKeyTypes[keyType];
  const jwk = { ...publicJwk(key.publicKey), alg: jwa };
  return {
    bundle: ca.bundle({ jwtAuthorities: [], witAuthorities: ca.bundle().jwtAuthorities }),
    jwk,
    wit: (claims = {}, header = {}) =>
      ca.jwt({ aud: undefined, cnf: { jwk }, ...claims }, { typ: 'wit+jwt', ...header }),
    proof(wit, claims = {}, header = {}) {
      const wth = createHash('sha256').update(wit).digest('base64url');
      const all = { aud: 'audience', exp: now / 1000 + 30, jti: 'one', wth, ...claims };
      const input = [{ alg: jwa, typ: 'wpt+jwt', ...header }, all]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.');
      return `${input}.${key.sign(Buffer.from(input), 'raw').toString('base64url')}`;
    },
  };
}
