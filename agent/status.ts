/** How the agent stands, for whoever asks: also how long it can go on should the server be away from now. */
import type { Fault } from '../src/errors.ts';
import type { SpiffeId } from '../src/spiffe/id.ts';
import type { Cache } from './cache.ts';
import type { JwtCache } from './jwt-cache.ts';
import type { NodeState } from './node.ts';
import type { SyncStatus } from './sync.ts';

export interface AgentStatus {
  readonly node: NodeState['kind'];
  /** The agent's own, and when its SVID expires (Unix milliseconds). */
  readonly id: SpiffeId | undefined;
  readonly svidExpiresAt: number | undefined;
  readonly sync: 'push' | 'poll';
  /** Unix milliseconds; 0 for never. */
  readonly lastSync: number;
  /** How far in the server's log. */
  readonly position: bigint;
  readonly logId: string;
  readonly entries: number;
  readonly x509Svids: number;
  readonly jwtSvids: number;
  /** Why the server cannot be used now. */
  readonly outage: string | undefined;
  /** When the first SVID that is kept expires (Unix milliseconds): until then every workload is served. */
  readonly servesUntil: number | undefined;
  /** When the last one expires, and the first JWT-SVID that is kept. */
  readonly servesSomeUntil: number | undefined;
  readonly jwtsUntil: number | undefined;
}

export function agentStatus(of: {
  readonly node: NodeState;
  readonly cache: Cache;
  readonly jwts: JwtCache;
  readonly sync: SyncStatus;
  readonly outage: Fault | undefined;
}): AgentStatus {
  let servesUntil: number | undefined;
  let servesSomeUntil: number | undefined;
  for (const { notAfter } of of.cache.svids.values()) {
    servesUntil = Math.min(servesUntil ?? notAfter, notAfter);
    servesSomeUntil = Math.max(servesSomeUntil ?? notAfter, notAfter);
  }
  const record = 'node' in of.node ? of.node.node : undefined;
  return {
    node: of.node.kind,
    id: record?.id,
    svidExpiresAt: record?.notAfter,
    ...of.cache.position,
    sync: of.sync.mode,
    lastSync: of.sync.lastSuccess,
    entries: of.cache.entries.size,
    x509Svids: of.cache.svids.size,
    jwtSvids: of.jwts.size,
    outage: (of.sync.outage ?? of.outage)?.message,
    servesUntil,
    servesSomeUntil,
    jwtsUntil: of.jwts.until,
  };
}
