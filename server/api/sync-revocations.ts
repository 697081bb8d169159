/** All that is revoked, as mutual.server.v1.Sync tells it; made once for each state of the world. */
import type { World } from '../entries/world.ts';
import { parsed } from '../revocation/lists.ts';
import type { Revocations } from './sync-group.ts';

const made = new WeakMap<World, { readonly position: number; readonly value: Revocations }>();

export function wireRevocations(world: World): Revocations {
  const held = made.get(world);
  if (held?.position === world.position) return held.value;
  const deniedTokens: object[] = [];
  for (const { kind, value, revokedAt, expiresAt } of world.revocations.values()) {
    if (kind === 'jti') deniedTokens.push({ jti: value, until: expiresAt });
    else if (kind === 'tokens') deniedTokens.push({ spiffe_id: value, issued_by: revokedAt, until: expiresAt });
  }
  const value = { crls: [...world.crls.values()].map((crl) => parsed(crl).der), deniedTokens };
  made.set(world, { position: world.position, value });
  return value;
}
