/** spire.api.server.localauthority.v1.LocalAuthority: rotation of this server's authorities on purpose. */
import { Fault } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Authority, Revoked } from '../authority/authority.ts';
import type { UpstreamRoots } from '../authority/upstream-roots.ts';
import type { Context } from './context.ts';

interface IdRequest {
  authority_id: string;
}

export function localAuthorityService({ world, authorities, log }: Context): Service {
  function methodsOf<Signer>(kind: 'X509' | 'JWT' | 'WIT', held: Authority<Signer> | undefined) {
    const authority = (): Authority<Signer> => {
      if (held) return held;
      throw new Fault('method/unimplemented', `${kind} functionality is disabled`);
    };
    const step =
      (field: string, act: (id: string, authority: Authority<Signer>) => Promise<Revoked>) =>
      async ({ authority_id }: IdRequest) => {
        const acting = authority();
        if (authority_id === '') throw new Fault('input/invalid', 'the authority ID is missing');
        const slot = await act(authority_id, acting);
        await world.reach();
        return { [field]: slotToWire(slot) };
      };
    return {
      [`Get${kind}AuthorityState`]: async () => {
        await authority().catchUp();
        const { active, prepared, old } = authority().state();
        return {
          ...(active && { active: slotToWire(active) }),
          ...(prepared && { prepared: slotToWire(prepared) }),
          ...(old && { old: slotToWire(old) }),
        };
      },
      [`Prepare${kind}Authority`]: async () => {
        const slot = await authority().prepare();
        await world.reach();
        return { prepared_authority: slotToWire(slot) };
      },
      [`Activate${kind}Authority`]: step('activated_authority', (id, acting) => acting.activate(id)),
      [`Taint${kind}Authority`]: step('tainted_authority', async (id, acting) => {
        const slot = await acting.taint(id);
        await refresh();
        return slot;
      }),
      [`Revoke${kind}Authority`]: step('revoked_authority', (id, acting) => acting.revoke(id)),
    };
  }

  /** What the listener presents must not hang on a tainted authority for a moment longer. */
  async function refresh(): Promise<void> {
    await authorities
      .keepFresh()
      .catch((error: unknown) => log.error({ error }, 'authorities could not be looked after'));
  }
  const ofRoot =
    (act: (roots: UpstreamRoots, id: string) => Promise<void>) =>
    async ({ subject_key_id }: { subject_key_id: string }) => {
      const { roots, isBelow } = authorities;
      if (!isBelow)
        throw new Fault('state/refused', 'upstream authority is not configured', {
          hint: 'This server signs its own roots: taint and revoke those with "mutual authority x509".',
        });
      if (subject_key_id === '') throw new Fault('input/invalid', 'the subject key ID is missing');
      const id = subject_key_id.toLowerCase();
      await act(roots, id);
      await refresh();
      await world.reach();
      return { upstream_authority_subject_key_id: id };
    };
  const methods = {
    ...methodsOf('X509', authorities.x509),
    ...methodsOf('JWT', authorities.jwt),
    ...methodsOf('WIT', authorities.wit),
    TaintX509UpstreamAuthority: ofRoot((roots, id) => roots.taint(id)),
    RevokeX509UpstreamAuthority: ofRoot((roots, id) => roots.revoke(id)),
  };
  return { name: 'spire.api.server.localauthority.v1.LocalAuthority', methods };
}

function slotToWire(slot: Revoked): object {
  return {
    authority_id: slot.id,
    expires_at: Math.floor(slot.notAfter / 1000),
    upstream_authority_subject_key_id: slot.upstream?.id ?? '',
  };
}
