/** spire.agent.debug.v1.Debug, on the admin socket: what the agent is and how much it holds. */
import { parseCertificate } from '../../src/crypto/certificate.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import { checkLeaf } from '../../src/spiffe/x509-svid.ts';
import { idToWire } from '../../src/wire/id.ts';
import type { Cache } from '../cache.ts';
import type { JwtCache } from '../jwt-cache.ts';

export interface DebugPorts {
  readonly clock: Clock;
  readonly cache: Cache;
  readonly jwts: JwtCache;
  /** The agent's own chain, DER, leaf first; empty before attestation. */
  chain(): readonly Buffer[];
  /** Unix milliseconds; 0 for never. */
  lastSync(): number;
  /** SVIDs that lie in stores. */
  stored(): number;
}

export function debugApi(ports: DebugPorts): Service {
  const started = ports.clock.now();
  return {
    name: 'spire.agent.debug.v1.Debug',
    methods: {
      GetInfo: () => ({
        svid_chain: ports.chain().map(describe),
        uptime: Math.floor((ports.clock.now() - started) / 1000),
        svids_count: ports.cache.svids.size,
        last_sync_success: Math.floor(ports.lastSync() / 1000),
        cached_x509_svids_count: ports.cache.svids.size,
        cached_jwt_svids_count: ports.jwts.size,
        cached_svidstore_x509_svids_count: ports.stored(),
      }),
    },
  };
}

function describe(der: Buffer): object {
  const certificate = parseCertificate(der);
  const [uri] = certificate.uris;
  return {
    id: certificate.isCa || uri === undefined ? null : idToWire(checkLeaf(certificate)),
    expires_at: Math.floor(certificate.notAfter / 1000),
    subject: certificate.commonName ?? '',
  };
}
