/** mutual.agent.v1.Status, on the admin socket: how the agent stands and how long it can last. */
import type { Service } from '../../src/rpc/serve.ts';
import type { Refusal } from '../refusals.ts';
import type { AgentStatus } from '../status.ts';

const seconds = (ms: number | undefined): number => Math.floor((ms ?? 0) / 1000);

export function statusApi(status: () => AgentStatus, refusals: () => readonly Refusal[]): Service {
  return {
    name: 'mutual.agent.v1.Status',
    methods: {
      GetStatus() {
        const now = status();
        return {
          id: now.id ?? '',
          node: now.node,
          svid_expires_at: seconds(now.svidExpiresAt),
          sync: now.sync,
          last_sync: seconds(now.lastSync),
          position: now.position.toString(),
          log_id: now.logId,
          entries: now.entries,
          x509_svids: now.x509Svids,
          jwt_svids: now.jwtSvids,
          outage: now.outage ?? '',
          serves_all_until: seconds(now.servesUntil),
          serves_some_until: seconds(now.servesSomeUntil),
          jwts_until: seconds(now.jwtsUntil),
          refusals: refusals().map((one) => ({ ...one, at: seconds(one.at) })),
        };
      },
    },
  };
}
