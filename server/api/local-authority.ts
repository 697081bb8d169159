/** spire.api.server.localauthority.v1.LocalAuthority: rotation of this server's authorities on purpose. */
import { Fault } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Authority } from '../authority/authority.ts';
import type { Slot } from '../authority/slots.ts';
import type { Context } from './context.ts';

interface IdRequest {
  authority_id: string;
}

export function localAuthorityService({ options, world, authorities }: Context): Service {
  function methodsOf<Signer>(kind: 'X509' | 'JWT', authority: Authority<Signer>, check: () => void) {
    const step =
      (field: string, act: (id: string) => Promise<Slot>) =>
      async ({ authority_id }: IdRequest) => {
        check();
        if (authority_id === '') throw new Fault('input/invalid', 'the authority ID is missing');
        const slot = await act(authority_id);
        await world.reach();
        return { [field]: slotToWire(slot) };
      };
    return {
      [`Get${kind}AuthorityState`]() {
        check();
        const { active, prepared, old } = authority.state();
        return {
          ...(active && { active: slotToWire(active) }),
          ...(prepared && { prepared: slotToWire(prepared) }),
          ...(old && { old: slotToWire(old) }),
        };
      },
      [`Prepare${kind}Authority`]: async () => {
        check();
        const slot = await authority.prepare();
        await world.reach();
        return { prepared_authority: slotToWire(slot) };
      },
      [`Activate${kind}Authority`]: step('activated_authority', (id) => authority.activate(id)),
      [`Taint${kind}Authority`]: step('tainted_authority', async (id) => {
        const slot = await authority.taint(id);
        // What the listener presents must not hang on a tainted authority for a moment longer.
        await authorities.keepFresh();
        return slot;
      }),
      [`Revoke${kind}Authority`]: step('revoked_authority', (id) => authority.revoke(id)),
    };
  }

  const noUpstream = (): never => {
    throw new Fault('state/refused', 'upstream authority is not configured');
  };
  const noWit = (): never => {
    throw new Fault('method/unimplemented', 'WIT authorities are not offered');
  };
  const methods = {
    ...methodsOf('X509', authorities.x509, () => {}),
    ...methodsOf('JWT', authorities.jwt, () => {
      if (options.disableJwtSvids) throw new Fault('method/unimplemented', 'JWT functionality is disabled');
    }),
    TaintX509UpstreamAuthority: noUpstream,
    RevokeX509UpstreamAuthority: noUpstream,
    GetWITAuthorityState: noWit,
    PrepareWITAuthority: noWit,
    ActivateWITAuthority: noWit,
    TaintWITAuthority: noWit,
    RevokeWITAuthority: noWit,
  };
  return { name: 'spire.api.server.localauthority.v1.LocalAuthority', methods };
}

function slotToWire(slot: Slot): object {
  return { authority_id: slot.id, expires_at: Math.floor(slot.notAfter / 1000), upstream_authority_subject_key_id: '' };
}
