/**
 * Who may call what: one table, deny by default. A method that is not in the table is refused; a caller that is nothing
 * in particular is refused everywhere but on the two methods open to all.
 */
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import { isAgentId, isMemberOf, type SpiffeId, type TrustDomain } from '../../src/spiffe/id.ts';
import type { World } from '../entries/world.ts';
import type { Nodes, StoredNode } from '../store/store.ts';

/** `local`: the admin socket. `admin`, `downstream`: an entry says so. `agent`: an attested node's current SVID. */
export type Who = 'any' | 'local' | 'admin' | 'agent' | 'downstream';

const operators = ['local', 'admin'] as const;

/** spire-wire §1, and our own services. */
export const access: Readonly<Record<string, readonly Who[]>> = {
  ...service('spire.api.server.agent.v1.Agent', {
    CountAgents: operators,
    ListAgents: operators,
    GetAgent: operators,
    DeleteAgent: operators,
    BanAgent: operators,
    AttestAgent: ['any'],
    RenewAgent: ['agent'],
    CreateJoinToken: operators,
    PostStatus: ['agent'],
  }),
  ...service('spire.api.server.bundle.v1.Bundle', {
    CountBundles: operators,
    GetBundle: ['any'],
    AppendBundle: operators,
    PublishJWTAuthority: ['downstream'],
    PublishWITAuthority: ['downstream'],
    ListFederatedBundles: operators,
    GetFederatedBundle: ['local', 'admin', 'agent'],
    BatchCreateFederatedBundle: operators,
    BatchUpdateFederatedBundle: operators,
    BatchSetFederatedBundle: operators,
    BatchDeleteFederatedBundle: operators,
  }),
  ...service('spire.api.server.entry.v1.Entry', {
    CountEntries: operators,
    ListEntries: operators,
    GetEntry: operators,
    BatchCreateEntry: operators,
    BatchUpdateEntry: operators,
    BatchDeleteEntry: operators,
    GetAuthorizedEntries: ['agent'],
    SyncAuthorizedEntries: ['agent'],
  }),
  ...service('spire.api.server.svid.v1.SVID', {
    MintX509SVID: operators,
    MintJWTSVID: operators,
    MintWITSVID: operators,
    BatchNewX509SVID: ['agent'],
    NewJWTSVID: ['agent'],
    BatchNewWITSVID: ['agent'],
    NewDownstreamX509CA: ['downstream'],
  }),
  ...service('spire.api.server.trustdomain.v1.TrustDomain', {
    ListFederationRelationships: operators,
    GetFederationRelationship: operators,
    BatchCreateFederationRelationship: operators,
    BatchUpdateFederationRelationship: operators,
    BatchDeleteFederationRelationship: operators,
    RefreshBundle: operators,
  }),
  ...service('spire.api.server.localauthority.v1.LocalAuthority', {
    GetX509AuthorityState: operators,
    PrepareX509Authority: operators,
    ActivateX509Authority: operators,
    TaintX509Authority: operators,
    RevokeX509Authority: operators,
    TaintX509UpstreamAuthority: operators,
    RevokeX509UpstreamAuthority: operators,
    GetJWTAuthorityState: operators,
    PrepareJWTAuthority: operators,
    ActivateJWTAuthority: operators,
    TaintJWTAuthority: operators,
    RevokeJWTAuthority: operators,
    GetWITAuthorityState: operators,
    PrepareWITAuthority: operators,
    ActivateWITAuthority: operators,
    TaintWITAuthority: operators,
    RevokeWITAuthority: operators,
  }),
  ...service('spire.api.server.logger.v1.Logger', {
    GetLogger: ['local'],
    SetLogLevel: ['local'],
    ResetLogLevel: ['local'],
  }),
  ...service('spire.api.server.debug.v1.Debug', { GetInfo: ['local'] }),
  ...service('grpc.health.v1.Health', { Check: ['local'], Watch: ['local'], List: ['local'] }),
  ...service('mutual.server.v1.Rotation', {
    StartRotation: operators,
    AdvanceRotation: operators,
    GetRotation: operators,
  }),
  ...service('mutual.server.v1.Sync', { Watch: ['agent'], Position: ['agent'] }),
  ...service('mutual.server.v1.Revocation', { Revoke: operators, Coverage: operators, List: operators }),
};

function service(name: string, methods: Record<string, readonly Who[]>): Record<string, readonly Who[]> {
  return Object.fromEntries(Object.entries(methods).map(([method, who]) => [`/${name}/${method}`, who]));
}

/** What a caller that passed is, for the handlers: derived from what is stored, never from the request. */
export interface Rights {
  readonly as: Who;
  /** Set when the method is for agents and the caller came as one. */
  readonly node?: StoredNode;
  /** Set when the caller presented an X509-SVID. */
  readonly id?: SpiffeId;
}

/** What an agent is told whose SVID was revoked: one that can attest again does so, as after its expiry. */
export function agentRevoked(): Fault {
  return new Fault('caller/denied', 'the agent SVID is revoked', { reason: 'AGENT_NOT_ACTIVE' });
}

/** What the streams of a connection are told at the end of the SVID that it was made with: most are those of agents. */
export const svidExpired = new Fault('caller/denied', 'the SVID with which this connection was made has expired', {
  reason: 'AGENT_EXPIRED',
});

export interface AccessPorts {
  readonly trustDomain: TrustDomain;
  /** Whether the configuration makes it an administrator, now. */
  isAdmin(id: SpiffeId): boolean;
  readonly world: World;
  readonly nodes: Nodes;
  readonly clock: Clock;
}

/**
 * Makes the check that runs before every handler. It gives the caller's rights or throws `caller/denied`; a promise only
 * when the store has to be asked.
 */
export function accessControl(ports: AccessPorts): (call: Call) => Rights | Promise<Rights> {
  const { trustDomain, isAdmin, world, nodes, clock } = ports;
  return (call) => {
    const allowed = Object.hasOwn(access, call.method) ? access[call.method] : undefined;
    const { caller } = call;
    const denied = (extras: Denial): Fault => deniedFor(call.method, extras);
    if (!allowed) throw denied({ detail: 'the method is not in the access table' });
    const id = caller.kind === 'tls' ? caller.svid?.id : undefined;
    const seen = id ? { id } : {};
    if (allowed.includes('any')) return { as: 'any', ...seen };
    if (caller.kind === 'unix') {
      if (allowed.includes('local')) return { as: 'local' };
      throw denied({ detail: 'the admin socket may not call methods of agents' });
    }
    if (!id || !caller.svid) throw denied({ detail: 'the caller presented no X509-SVID' });
    // The handshake may be long ago: rights do not outlive the SVID, whatever the connection does.
    if (clock.now() >= caller.svid.leaf.notAfter) {
      const detail = `the SVID of ${id} has expired`;
      throw denied(allowed.includes('agent') ? { detail, reason: 'AGENT_EXPIRED' } : { detail });
    }
    // Nor does a connection outlive the revocation of what it was opened with.
    if (world.revocations.has(`serial:${caller.svid.leaf.serial}`)) {
      if (allowed.includes('agent')) throw agentRevoked();
      throw denied({ detail: `the SVID of ${id} is revoked` });
    }
    if (allowed.includes('admin')) {
      if (isAdmin(id)) return { as: 'admin', id };
      if (isMemberOf(id, trustDomain))
        for (const entry of world.entriesOf(id)) if (entry.admin) return { as: 'admin', id };
    }
    if (allowed.includes('downstream') && isMemberOf(id, trustDomain)) {
      for (const entry of world.entriesOf(id)) if (entry.downstream) return { as: 'downstream', id };
    }
    if (!allowed.includes('agent')) throw denied({ detail: `${id} is neither admin nor downstream` });

    if (!isMemberOf(id, trustDomain) || !isAgentId(id)) {
      throw denied({ detail: `${id} is not an agent`, reason: 'AGENT_NOT_ATTESTED' });
    }
    const serial = caller.svid.leaf.serial.toString();
    const node = world.nodes.get(id);
    // Memory may lag behind another server by a moment: before refusing, ask the store itself.
    return node?.serial === serial ? { as: 'agent', id, node } : askStore(id, serial, denied);
  };

  async function askStore(id: SpiffeId, serial: string, denied: (extras: Denial) => Fault): Promise<Rights> {
    const node = await nodes.get(id);
    if (!node) throw denied({ detail: `${id} is not attested`, reason: 'AGENT_NOT_ATTESTED' });
    if (node.serial === '') throw denied({ detail: `${id} is banned`, reason: 'AGENT_BANNED' });
    if (node.serial === serial) return { as: 'agent', id, node };
    if (node.nextSerial === serial && (await nodes.activate(id, serial))) {
      return {
        as: 'agent',
        id,
        node: { ...node, serial, expiresAt: node.nextExpiresAt, nextSerial: '', nextExpiresAt: 0 },
      };
    }
    throw denied({ detail: `${id} presented serial ${serial}, which is not active`, reason: 'AGENT_NOT_ACTIVE' });
  }
}

interface Denial {
  readonly detail: string;
  readonly reason?: Fault['reason'];
}

function deniedFor(method: string, { detail, reason }: Denial): Fault {
  return new Fault('caller/denied', `authorization denied for method ${method}`, { detail, ...(reason && { reason }) });
}
