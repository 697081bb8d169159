/** spire.api.server.debug.v1.Debug: what the server is and how much it holds. */
import { parseCertificate } from '../../src/crypto/certificate.ts';
import type { Service } from '../../src/rpc/serve.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { idToWire } from '../../src/wire/id.ts';
import { nameText } from '../issue/subject.ts';
import type { Context } from './context.ts';

/** @param startedAt milliseconds */
export function debugService({ world, trustDomain, authorities, clock }: Context, startedAt: number): Service {
  const methods = {
    GetInfo() {
      const root = authorities.x509.signer.value.certificate.der;
      const chain = [...authorities.serverSvid.value.chain, root].map(parseCertificate);
      return {
        svid_chain: chain.map((certificate) => ({
          ...(certificate.uris[0] !== undefined && { id: idToWire(parseId(certificate.uris[0])) }),
          expires_at: Math.floor(certificate.notAfter / 1000),
          subject: nameText(certificate.subject),
        })),
        uptime: Math.floor((clock.now() - startedAt) / 1000),
        agents_count: world.nodes.size,
        entries_count: world.entries.size,
        // SPIRE counts its own bundle here too; a federated bundle is another domain's.
        federated_bundles_count: world.bundles.size - (world.bundles.has(trustDomain) ? 1 : 0),
      };
    },
  };
  return { name: 'spire.api.server.debug.v1.Debug', methods };
}
