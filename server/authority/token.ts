/** Authorities whose keys sign tokens: what the JWT and the WIT authority have in common. */
import { classicFacts, type JwtAlgorithm } from '../../src/crypto/algorithms.ts';
import type { Key } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle, JwtAuthority } from '../../src/spiffe/bundle.ts';
import { backdate } from '../../src/spiffe/lifetime.ts';
import type { AuthorityKind } from './authority.ts';
import type { Slot } from './slots.ts';

export interface TokenSigner {
  /** The `kid`. */
  readonly keyId: string;
  /** The JWA name, such as ES256. */
  readonly algorithm: JwtAlgorithm;
  readonly key: Key;
  /** Milliseconds: no token outlives its key. */
  readonly notAfter: number;
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** 32 letters and digits: 190 bits, so never twice, in a bundle's keys for tokens of both kinds (WIT-28). */
function newKeyId(random: Random): string {
  let id = '';
  while (id.length < 32) {
    for (const byte of random.bytes(64)) {
      if (byte < 248 && id.length < 32) id += alphabet[byte % 62];
    }
  }
  return id;
}

/**
 * @param field where a bundle has its keys
 * @param lifetime milliseconds
 */
export function tokenKind(
  { name, prefix, field }: { name: string; prefix: string; field: 'jwtAuthorities' | 'witAuthorities' },
  lifetime: number,
  random: Random,
): AuthorityKind<TokenSigner> {
  const published = (slot: Slot): JwtAuthority => ({
    keyId: slot.id,
    publicKey: Buffer.from(slot.material, 'base64'),
    expiresAt: Math.floor(slot.notAfter / 1000),
    tainted: slot.tainted,
  });
  const without = (bundle: Bundle, id: string): JwtAuthority[] => bundle[field].filter(({ keyId }) => keyId !== id);
  return {
    name,
    prefix,
    make: async (key, now) => ({
      id: newKeyId(random),
      // As a certificate: a clock that is set back a little is no reason to refuse a start.
      notBefore: now - backdate,
      notAfter: now + lifetime,
      material: key.publicKey.toString('base64'),
    }),
    spkiOf: ({ material }) => Buffer.from(material, 'base64'),
    signer: (slot, key) => ({
      keyId: slot.id,
      algorithm: classicFacts(key.type, 'an authority of tokens').jwa,
      key,
      notAfter: slot.notAfter,
    }),
    publish(bundle, slot) {
      const there = bundle[field].find(({ keyId }) => keyId === slot.id);
      if (there?.tainted === slot.tainted) return undefined;
      return { ...bundle, [field]: [...without(bundle, slot.id), published(slot)] };
    },
    withdraw: (bundle, slot) =>
      bundle[field].some(({ keyId }) => keyId === slot.id)
        ? { ...bundle, [field]: without(bundle, slot.id) }
        : undefined,
    withdrawTainted(bundle, id) {
      const found = bundle[field].find(({ keyId, tainted }) => keyId === id && tainted);
      return found && { bundle: { ...bundle, [field]: without(bundle, id) }, notAfter: found.expiresAt * 1000 };
    },
  };
}
