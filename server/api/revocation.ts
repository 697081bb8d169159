/** mutual.server.v1.Revocation: single identities taken back, and how far the word has come. */
import { authorityId } from '../../src/crypto/certificate.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import { isAgentId, isMemberOf, parseId, requireWorkloadId, type SpiffeId } from '../../src/spiffe/id.ts';
import { authorityCertificate } from '../../src/spiffe/x509-svid.ts';
import { parsed, type RevocationLists } from '../revocation/lists.ts';
import type { Reach } from '../revocation/reach.ts';
import type { Revoker, Target } from '../revocation/revoke.ts';
import type { Revoked } from '../store/store.ts';
import type { Context } from './context.ts';

interface RevokeRequest {
  target?: string;
  serial?: string;
  jti?: string;
  spiffe_id?: string;
  entry_id?: string;
  agent_id?: string;
  unrecorded: boolean;
}

export function revocationService(
  context: Context,
  { revoker, lists, reach }: { revoker: Revoker; lists: RevocationLists; reach: Reach },
): Service {
  const { trustDomain, options, world, authorities } = context;

  function targetOf(request: RevokeRequest): Target {
    const value = request.target === undefined ? undefined : request[request.target as 'serial'];
    switch (request.target) {
      case 'serial':
        return { by: 'serial', serial: readSerial(value ?? ''), unrecorded: request.unrecorded };
      case 'jti':
        if (value === undefined || value === '' || value.length > 1024)
          throw new Fault('input/invalid', `jti ${quote(value)} is not valid: expected 1 to 1024 characters`);
        return { by: 'jti', jti: value };
      case 'spiffe_id':
        return { by: 'subject', id: requireWorkloadId(parseId(value ?? ''), trustDomain, 'SPIFFE ID') };
      case 'entry_id':
        if (value === '') throw new Fault('input/invalid', 'entry ID "" is not valid: expected the ID of an entry');
        return { by: 'entry', entryId: value ?? '' };
      case 'agent_id':
        return { by: 'agent', id: agentId(value ?? '') };
      default:
        throw new Fault('input/invalid', 'nothing to revoke is named', {
          hint: 'Name one of serial, jti, spiffe_id, entry_id and agent_id.',
        });
    }
  }
  function agentId(text: string): SpiffeId {
    const id = parseId(text);
    if (isMemberOf(id, trustDomain) && isAgentId(id)) return id;
    throw new Fault('input/invalid', `agent ID ${quote(id)} is not an agent of trust domain ${quote(trustDomain)}`, {
      hint: `Use spiffe://${trustDomain}/spire/agent/...`,
    });
  }

  /** Authorities in the bundle whose lists lack one of these serials. */
  function missingIn(done: readonly Revoked[]): string[] {
    const serials = done.filter(({ revocation }) => revocation.kind === 'serial').map(({ revocation }) => revocation);
    const held =
      world.bundles.get(trustDomain)?.x509Authorities.flatMap((one) => authorityCertificate(one) ?? []) ?? [];
    return held.map(authorityId).filter((authority) => {
      const crl = world.crls.get(authority);
      return serials.some(
        (one) =>
          (one.authority === '' || one.authority === authority) && !(crl && parsed(crl).revoked.has(BigInt(one.value))),
      );
    });
  }

  const methods = {
    async Revoke(request: RevokeRequest) {
      const done = await revoker.revoke(targetOf(request));
      await lists.refresh(authorities.x509.state);
      await world.reach();
      return {
        revoked: done.map(revokedToWire),
        position: world.position,
        missing_authority_ids: missingIn(done),
        records: options.revocation.record,
      };
    },

    async Coverage({ position }: { position: string }, call: Call, send: (message: object) => Promise<void>) {
      for await (const now of reach.follow(Number(position), call.signal)) await send(now);
    },

    List: () => ({
      revoked: [...world.revocations.values()]
        .filter(({ kind }) => kind === 'serial' || kind === 'jti' || kind === 'tokens')
        .map((revocation) => revokedToWire({ revocation, already: false })),
      lists: [...world.crls.values()].map(({ authority, number, der }) => ({
        authority_id: authority,
        number,
        crl: Buffer.from(der, 'base64'),
      })),
    }),
  };

  return { name: 'mutual.server.v1.Revocation', methods };
}

/** Decimal of a serial in decimal, or in hexadecimal with 0x, colons or letters. Throws `input/invalid`. */
export function readSerial(text: string): string {
  const digits = text.replace(/^0x/i, '').replaceAll(':', '');
  const isHex = text !== digits || /[a-f]/i.test(digits);
  if (digits === '' || !(isHex ? /^[0-9a-f]+$/i : /^[0-9]+$/).test(digits) || digits.length > 49) {
    throw new Fault(
      'input/invalid',
      `serial ${quote(text)} is not a serial number: expected decimal or hexadecimal digits`,
      {
        hint: 'Write it as "openssl x509 -noout -serial" prints it, with 0x before it, or in decimal.',
      },
    );
  }
  const serial = BigInt(isHex ? `0x${digits}` : digits);
  if (serial === 0n || serial >= 1n << 160n) {
    throw new Fault('input/invalid', `serial ${quote(text)} is not a serial number: expected 1 to 20 bytes, not zero`);
  }
  return serial.toString();
}

function revokedToWire({ revocation, already }: Revoked): object {
  return {
    kind: revocation.kind,
    value: revocation.value,
    spiffe_id: revocation.spiffeId,
    authority_id: revocation.authority,
    revoked_at: revocation.revokedAt,
    expires_at: Math.floor(revocation.expiresAt / 1000),
    already,
  };
}
