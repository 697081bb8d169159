/** spire.api.server.agent.v1.Agent: node attestation and renewal for agents, the list of nodes for operators. */
import { type Csr, parseCsr } from '../../src/crypto/csr.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import { isAgentId, isMemberOf, makeId, requireWorkloadId, type SpiffeId } from '../../src/spiffe/id.ts';
import { makeSelector } from '../../src/spiffe/selector.ts';
import { idFromWire, idToWire, selectorsFromWire, selectorToWire, type WireId } from '../../src/wire/id.ts';
import { expired, missing } from '../attest/join-token.ts';
import { issueX509Svid } from '../issue/x509.ts';
import type { StoredNode } from '../store/store.ts';
import type { Context } from './context.ts';
import { countOf, cutPage, requireSelectors, setMatches, type WireSelectorMatch } from './page.ts';
import { recordSvid, svidToWire } from './svid.ts';
import { nodeSize } from './sync-group.ts';

interface AgentFilter {
  by_attestation_type: string;
  by_selector_match: WireSelectorMatch | null;
  by_banned: { value: boolean } | null;
  by_can_reattest: { value: boolean } | null;
  by_expires_before: string;
}

type AgentMask = Record<string, boolean>;

interface AttestRequest {
  params?: { data: { type: string; payload: Buffer } | null; params: { csr: Buffer } | null } | null;
  challenge_response?: Buffer | null;
}

const longestVersion = 255;
/** Milliseconds from the turn of an attestation to its end. */
const attestWithin = 60_000;

export function agentService(context: Context): Service {
  const { trustDomain, options, store, world, authorities, attestors, limit, rightsOf, recheck, clock, random, log } =
    context;
  function agentId(wire: WireId | null): SpiffeId {
    const id = idFromWire(wire, 'agent ID');
    if (!isMemberOf(id, trustDomain) || !isAgentId(id)) {
      throw new Fault('input/invalid', `agent ID ${quote(id)} is not an agent of trust domain ${quote(trustDomain)}`, {
        hint: `Use spiffe://${trustDomain}/spire/agent/...`,
      });
    }
    return id;
  }

  const notFound = (): Fault => new Fault('thing/missing', 'agent not found');

  function list(filter: AgentFilter | null, size: number, token: string) {
    return cutPage(() => world.nodes.values(), agentFilter(filter), size, token, nodeSize);
  }

  function readCsr(csr: Buffer | undefined): Csr {
    if (!csr || csr.length === 0) throw new Fault('input/invalid', 'missing CSR');
    const request = parseCsr(csr, options.experimental);
    if (!request.verify()) throw new Fault('input/invalid', 'the CSR is not signed by the key it holds');
    return request;
  }

  /** Signs the agent's certificate: the ID is the one that was proved, the request gives the key alone. */
  async function sign(request: Csr, id: SpiffeId) {
    const signer = authorities.x509.signer.value;
    const svid = await issueX509Svid(
      signer,
      { id, spki: request.spki, ttl: options.agentTtl, dnsNames: [] },
      clock.now(),
      random,
    );
    recordSvid(context, svid, signer.authorityId, { spiffeId: id, entryId: '', agentId: id });
    return svid;
  }

  /** Everything of an attestation after its turn has come. `read` gives the agent's next message. */
  async function attest(
    read: () => Promise<IteratorResult<AttestRequest>>,
    send: (message: object) => Promise<void>,
  ): Promise<void> {
    const first = await read();
    const params = first.done ? undefined : first.value.params;
    if (!params) throw new Fault('input/invalid', 'malformed param: missing params');
    if (!params.data) throw new Fault('input/invalid', 'malformed param: missing attestation data');
    if (params.data.type === '') throw new Fault('input/invalid', 'malformed param: missing attestation data type');
    if (params.data.payload.length === 0)
      throw new Fault('input/invalid', 'malformed param: missing attestation data payload');
    if (!params.params || params.params.csr.length === 0)
      throw new Fault('input/invalid', 'malformed param: missing X509-SVID parameters or CSR');
    const attestor = attestors.value.get(params.data.type);
    if (!attestor) {
      throw new Fault(
        'state/refused',
        `error getting node attestor: could not find node attestor type ${quote(params.data.type)}`,
        {
          hint: `This server accepts: ${[...attestors.value.keys()].join(', ') || 'none'}.`,
        },
      );
    }
    const proving = attestor(params.data.payload, async (challenge) => {
      await send({ challenge });
      const next = await read();
      const response = next.done ? undefined : next.value.challenge_response;
      if (!response) throw new Fault('input/invalid', 'malformed param: expected a challenge response');
      return response;
    });
    // While the store looks for the token, in its own thread, the request is read in this one.
    proving.catch(() => {});
    const request = readCsr(params.params.csr);
    const proof = await proving;
    const svid = await sign(request, proof.id);
    const outcome = await store.nodes.attest(
      {
        id: proof.id,
        attestationType: params.data.type,
        serial: svid.serial,
        expiresAt: Math.floor(svid.notAfter / 1000),
        nextSerial: '',
        nextExpiresAt: 0,
        canReattest: proof.canReattest,
        selectors: [...proof.selectors].sort(),
        agentVersion: world.nodes.get(proof.id)?.agentVersion ?? '',
      },
      proof.token === undefined ? undefined : { value: proof.token, now: Math.floor(clock.now() / 1000) },
    );
    if (outcome === 'token-missing') throw missing();
    if (outcome === 'token-expired') throw expired();
    if (outcome === 'banned') throw new Fault('caller/denied', 'failed to attest: agent is banned');
    await world.reach();
    log.info(
      { agent: proof.id, method: params.data.type, expiresAt: new Date(svid.notAfter).toISOString() },
      'agent attested',
    );
    await send({ result: { svid: svidToWire(svid, proof.id, ''), reattestable: proof.canReattest } });
  }

  const methods = {
    CountAgents: ({ filter }: { filter: AgentFilter | null }) => ({
      count: countOf(world.nodes.values(), agentFilter(filter)),
    }),

    ListAgents(request: {
      filter: AgentFilter | null;
      output_mask: AgentMask | null;
      page_size: number;
      page_token: string;
    }) {
      const page = list(request.filter, request.page_size, request.page_token);
      return { agents: page.items.map((node) => nodeToWire(node, request.output_mask)), next_page_token: page.next };
    },

    GetAgent(request: { id: WireId | null; output_mask: AgentMask | null }) {
      const node = world.nodes.get(agentId(request.id));
      if (!node) throw notFound();
      return nodeToWire(node, request.output_mask);
    },

    async DeleteAgent({ id }: { id: WireId | null }) {
      const node = agentId(id);
      if (!(await context.withdrawing([{ by: 'agent', id: node }], () => store.nodes.delete(node)))) throw notFound();
      await world.reach();
      log.info({ agent: node }, 'agent evicted');
      return {};
    },

    async BanAgent({ id }: { id: WireId | null }) {
      const node = agentId(id);
      if (!(await context.withdrawing([{ by: 'agent', id: node }], () => store.nodes.ban(node)))) throw notFound();
      await world.reach();
      log.warn({ agent: node }, 'agent banned');
      return {};
    },

    async AttestAgent(requests: AsyncIterable<AttestRequest>, call: Call, send: (message: object) => Promise<void>) {
      await limit(call, 'attest');
      const incoming = requests[Symbol.asyncIterator]();
      // Anybody may open this stream: one that is left silent must not stay for ever.
      const { promise: late, reject } = Promise.withResolvers<never>();
      late.catch(() => {});
      const cancel = clock.after(attestWithin, () =>
        reject(new Fault('call/late', `the attestation was not finished within ${attestWithin / 1000} seconds`)),
      );
      try {
        await attest(() => Promise.race([incoming.next(), late]), send);
      } finally {
        cancel();
      }
    },

    async RenewAgent({ params }: { params: { csr: Buffer } | null }, call: Call) {
      await limit(call, 'csr');
      const node = rightsOf(call).node as StoredNode;
      if (node.canReattest) {
        throw new Fault('caller/denied', 'agent must reattest instead of renew', { reason: 'AGENT_MUST_REATTEST' });
      }
      if (!params) throw new Fault('input/invalid', 'params cannot be nil');
      const svid = await sign(readCsr(params.csr), node.id);
      if (!(await store.nodes.renew(node.id, svid.serial, Math.floor(svid.notAfter / 1000)))) {
        // Banned or evicted since the access check, which says which.
        await recheck(call);
        throw new Fault('caller/denied', 'agent is no longer attested', { reason: 'AGENT_NOT_ATTESTED' });
      }
      await world.reach();
      log.info({ agent: node.id, expiresAt: new Date(svid.notAfter).toISOString() }, 'agent SVID renewed');
      return { svid: svidToWire(svid, node.id, '') };
    },

    async CreateJoinToken(request: { ttl: number; token: string; agent_id: WireId | null }) {
      if (request.ttl < 1)
        throw new Fault(
          'input/invalid',
          `ttl ${quote(request.ttl)} is not valid: it is required and at least 1 second`,
        );
      if (request.token !== '' && !/^[A-Za-z0-9._-]{1,200}$/.test(request.token)) {
        throw new Fault('input/invalid', "the token is not valid: it becomes part of the agent's SPIFFE ID", {
          hint: 'Use 1 to 200 characters of A-Z, a-z, 0-9, ".", "_" and "-", or leave it out.',
        });
      }
      const now = Math.floor(clock.now() / 1000);
      const value = request.token || random.uuid();
      const parentId = makeId(trustDomain, `/spire/agent/join_token/${value}`);
      const alias = request.agent_id
        ? {
            draft: {
              id: '',
              spiffeId: requireWorkloadId(idFromWire(request.agent_id, 'agent ID'), trustDomain, 'agent ID'),
              parentId,
              selectors: [makeSelector('spiffe_id', parentId)],
              x509SvidTtl: 0,
              jwtSvidTtl: 0,
              federatesWith: [],
              admin: false,
              downstream: false,
              expiresAt: 0,
              dnsNames: [],
              storeSvid: false,
              hint: '',
              disableX509SvidPrefetch: false,
              jwtSvidIncludeJti: false,
            },
            stamp: { id: random.uuid(), now },
          }
        : undefined;
      const token = { value, expiresAt: now + request.ttl };
      if ((await store.tokens.create(token, alias)) === 'taken') {
        throw new Fault('thing/exists', 'the token exists already', {
          hint: 'Leave the value out to get a fresh one.',
        });
      }
      await world.reach();
      return { value, expires_at: token.expiresAt };
    },

    async PostStatus({ agent_version }: { agent_version: string }, call: Call) {
      await limit(call, 'post');
      if (agent_version.length > longestVersion) {
        throw new Fault('input/invalid', `agent version is longer than ${longestVersion} characters`);
      }
      const node = rightsOf(call).node as StoredNode;
      if (node.agentVersion !== agent_version) await store.nodes.setVersion(node.id, agent_version);
      return {};
    },
  };
  return { name: 'spire.api.server.agent.v1.Agent', methods };
}

function nodeToWire(node: StoredNode, mask: AgentMask | null): object {
  const full: Record<string, unknown> = {
    attestation_type: node.attestationType,
    x509svid_serial_number: node.serial,
    x509svid_expires_at: node.expiresAt,
    selectors: node.selectors.map(selectorToWire),
    banned: node.serial === '',
    can_reattest: node.canReattest,
    agent_version: node.agentVersion,
  };
  const kept = mask ? Object.fromEntries(Object.entries(full).filter(([field]) => mask[field])) : full;
  return { id: idToWire(node.id), ...kept };
}

function agentFilter(filter: AgentFilter | null): (node: StoredNode) => boolean {
  const tests: ((node: StoredNode) => boolean)[] = [];
  if (filter?.by_attestation_type) tests.push((node) => node.attestationType === filter.by_attestation_type);
  if (filter?.by_selector_match) {
    const wanted = requireSelectors(selectorsFromWire(filter.by_selector_match.selectors), 'filter.by_selector_match');
    const how = filter.by_selector_match.match;
    tests.push((node) => setMatches(node.selectors, wanted, how));
  }
  if (filter?.by_banned) {
    const banned = filter.by_banned.value;
    tests.push((node) => (node.serial === '') === banned);
  }
  if (filter?.by_can_reattest) {
    const can = filter.by_can_reattest.value;
    tests.push((node) => node.canReattest === can);
  }
  if (filter?.by_expires_before) {
    const limit = readGoTime(filter.by_expires_before);
    tests.push((node) => node.expiresAt < limit);
  }
  return (node) => tests.every((test) => test(node));
}

/**
 * Reads `2006-01-02 15:04:05 -0700 -07`, the layout SPIRE's command sends; the last part, a zone name, is not needed.
 * SPIRE ignores what it cannot read, and then lists everything: here it is refused.
 */
function readGoTime(text: string): number {
  const parts = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d\d)(\d\d)(?: \S+)?$/.exec(text);
  const time = parts ? Date.parse(`${parts[1]}T${parts[2]}${parts[3]}:${parts[4]}`) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new Fault('input/invalid', `expiry filter ${quote(text)} is not a time`, {
      hint: 'Write 2026-01-31 15:04:05 +0000 UTC.',
    });
  }
  return time / 1000;
}
