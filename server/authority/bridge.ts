/**
 * The way from the old X.509 authority to the one that signs, for the server's own chain: an agent that was away while
 * authorities changed trusts only the old one, or its root, and has to reach its server to learn of the new.
 */
import { parseCertificate } from '../../src/crypto/certificate.ts';
import type { Key } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import { roomBelow } from '../upstream/minted.ts';
import type { Slot } from './slots.ts';
import { crossSigned, type X509Signer } from './x509.ts';

/**
 * The active authority's certificate as the old one signs it, and those between the old one and its root. Empty where it
 * helps nobody: both lead to one root, or the root's path length allows no authority below the old one.
 * @param key of the old authority
 * @param now milliseconds
 */
export async function bridgeFrom(
  old: Slot,
  key: Key,
  active: { readonly slot: Slot; readonly signer: X509Signer },
  now: number,
  random: Random,
): Promise<readonly Buffer[]> {
  if (old.notAfter <= now) return [];
  if (old.upstream && old.upstream.root === active.slot.upstream?.root) return [];
  const below = old.upstream ? [old.material, ...old.upstream.chain].map((text) => Buffer.from(text, 'base64')) : [];
  const root = Buffer.from(old.upstream?.root ?? old.material, 'base64');
  if (roomBelow([...below, root].map(parseCertificate)) < 1) return [];
  return [await crossSigned(active.signer, old, key, random), ...below];
}
