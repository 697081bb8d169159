/**
 * A fake of the server: enough of its services for an agent, with everything in view of the test. It issues real SVIDs
 * from a test authority, refuses as the real one does, and checks what it is sent. The real server is met in test/flow.
 */

import type { OpenApi } from '../../../agent/link.ts';
import { serverApi } from '../../../agent/server-api.ts';
import type { NodeRecord } from '../../../agent/state.ts';
import { parseCertificate } from '../../../src/crypto/certificate.ts';
import { parseCsr } from '../../../src/crypto/csr.ts';
import { publicJwk } from '../../../src/crypto/jwk.ts';
import { type DenialReason, Fault, Status } from '../../../src/errors.ts';
import type { Caller } from '../../../src/rpc/caller.ts';
import type { Call, Send, Service } from '../../../src/rpc/serve.ts';
import type { Clock } from '../../../src/run/clock.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import type { Entry } from '../../../src/spiffe/entry.ts';
import { makeId, parseId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector, selectorSet } from '../../../src/spiffe/selector.ts';
import { bundleToWire } from '../../../src/wire/bundle.ts';
import { entryToWire } from '../../../src/wire/entry.ts';
import { idToWire } from '../../../src/wire/id.ts';
import { type TestAuthority, testAuthority } from '../../support/ca.ts';
import { memoryChannel } from './memory-channel.ts';

export const domain = parseTrustDomain('example.org');

export interface FakeNode {
  serial: bigint;
  nextSerial: bigint | undefined;
  banned: boolean;
  readonly reattestable: boolean;
}

export interface FakeServer {
  authority: TestAuthority;
  /** Methods called, in order, by name alone. */
  readonly calls: string[];
  readonly tokens: Set<string>;
  readonly nodes: Map<SpiffeId, FakeNode>;
  readonly entries: Map<string, Entry>;
  readonly bundles: Map<TrustDomain, Bundle>;
  /** Whether it has mutual.server.v1.Sync. */
  push: boolean;
  /** Whether it has SyncAuthorizedEntries. */
  delta: boolean;
  /** Entries a page of SyncAuthorizedEntries holds. */
  pageSize: number;
  /** Milliseconds. */
  agentTtl: number;
  svidTtl: number;
  jwtTtl: number;
  /** How long WIT-SVIDs live; 0 while it issues none. */
  witTtl: number;
  /** The `kid` of WIT-SVIDs. */
  witKeyId: string;
  /** Refuses every call with this. */
  outage: Fault | undefined;
  /** Answers for a method in place of the usual ones. */
  readonly instead: Map<string, (usual: () => unknown) => unknown>;
  /** What x509pop attestation asks and how many times. */
  readonly challenges: Buffer[];
  /** The proof of the last attestation: its payload and its answers. */
  lastProof: { readonly payload: Buffer; readonly answers: readonly any[] } | undefined;
  /** Entries for which X509-SVIDs were issued, in order. */
  readonly issued: string[];
  /** From where Watch was opened, as log@position, and what was acknowledged. */
  readonly starts: string[];
  readonly applied: bigint[];
  /** Streams of changes say nothing any more, though they stay open. */
  silent: boolean;
  /** Ends each open stream of changes with what it is called with. */
  readonly endWatch: Set<(fault: Fault) => void>;
  /** How often the agent wanted another connection. */
  reconnects: number;
  /** Whether connections are accepted and not answered on. */
  isWaiting: boolean;
  /** What the last stream has shown: where the next one goes on. */
  readonly shown: { entries: Map<string, Entry>; bundles: Map<TrustDomain, Bundle> };
  readonly services: readonly Service[];
  /** Refuses what the caller may not do; throws. */
  guard(method: string, caller: Caller): void;
  open(node: NodeRecord | undefined): OpenApi;
  put(entry: Partial<Entry> & { id: string }): Entry;
  remove(id: string): void;
  putBundle(bundle: Bundle): void;
  /** Issues WIT-SVIDs from now on, signed by the authority's JWT key under names of their own; some may be tainted. */
  offerWits(ttl?: number, tainted?: readonly string[]): void;
  count(method: string): number;
}

export function fakeServer(clock: Clock): FakeServer {
  const listeners = new Set<() => void>();
  let position = 1n;
  let made = 0;
  const changed = (): void => {
    position++;
    for (const told of [...listeners]) told();
  };

  const server: FakeServer = {
    authority: testAuthority({ now: clock.now(), root: { notAfter: clock.now() + 365 * 86_400_000 } }),
    calls: [],
    tokens: new Set(['the-token']),
    nodes: new Map(),
    entries: new Map(),
    bundles: new Map(),
    push: true,
    delta: true,
    pageSize: 2,
    agentTtl: 3_600_000,
    svidTtl: 3_600_000,
    jwtTtl: 300_000,
    witTtl: 0,
    witKeyId: 'wit-1',
    outage: undefined,
    instead: new Map(),
    challenges: [],
    lastProof: undefined,
    issued: [],
    starts: [],
    applied: [],
    silent: false,
    endWatch: new Set(),
    reconnects: 0,
    isWaiting: false,
    shown: { entries: new Map(), bundles: new Map() },
    get services() {
      return services;
    },
    guard: (method, caller) => guard(method, caller),
    open(node) {
      const chain = node?.chain ?? [];
      const [leaf, ...above] = chain.map(parseCertificate);
      const svid = node && leaf && { id: node.id, leaf, path: [leaf, ...above] };
      const caller: Caller = { kind: 'tls', address: '127.0.0.1', chain, ...(svid && { svid }) };
      const channel = memoryChannel(services, caller, guard);
      const reconnect = (): void => {
        server.reconnects += 1;
      };
      return {
        ...serverApi(channel),
        get isWaiting() {
          return server.isWaiting;
        },
        reconnect,
        close: () => channel.close(),
      };
    },
    put(given) {
      const before = server.entries.get(given.id);
      const entry: Entry = {
        spiffeId: makeId(domain, `/${given.id}`),
        parentId: makeId(domain, '/node'),
        selectors: selectorSet([parseSelector('unix:uid:1000')]),
        x509SvidTtl: 0,
        jwtSvidTtl: 0,
        federatesWith: [],
        admin: false,
        downstream: false,
        expiresAt: 0,
        dnsNames: [],
        storeSvid: false,
        hint: '',
        createdAt: Math.floor(clock.now() / 1000) + made++,
        disableX509SvidPrefetch: false,
        jwtSvidIncludeJti: false,
        ...before,
        ...given,
        revision: given.revision ?? (before === undefined ? 0 : before.revision + 1),
      };
      server.entries.set(entry.id, entry);
      changed();
      return entry;
    },
    remove(id) {
      server.entries.delete(id);
      changed();
    },
    putBundle(bundle) {
      server.bundles.set(bundle.trustDomain, bundle);
      changed();
    },
    offerWits(ttl = 3_600_000, tainted = []) {
      server.witTtl = ttl;
      const [key] = server.authority.bundle().jwtAuthorities;
      const named = (keyId: string) => ({ ...key!, keyId, tainted: tainted.includes(keyId) });
      const names = new Set([...tainted, server.witKeyId]);
      server.putBundle({ ...server.bundles.get(domain)!, witAuthorities: [...names].map(named) });
    },
    count: (method) => server.calls.filter((one) => one === method).length,
  };
  server.bundles.set(domain, server.authority.bundle());

  const denied = (reason: DenialReason): Fault => new Fault('caller/denied', `agent refused: ${reason}`, { reason });

  /** The agent behind a call, with the server's refusals. */
  const agentOf = (caller: Caller): FakeNode => {
    if (caller.kind !== 'tls' || caller.svid === undefined) throw new Fault('caller/denied', 'authorization denied');
    const { id, leaf } = caller.svid;
    if (leaf.notAfter <= clock.now()) throw denied('AGENT_EXPIRED');
    const node = server.nodes.get(id);
    if (node === undefined) throw denied('AGENT_NOT_ATTESTED');
    if (node.banned) throw denied('AGENT_BANNED');
    if (node.nextSerial === leaf.serial) [node.serial, node.nextSerial] = [leaf.serial, undefined];
    if (node.serial !== leaf.serial) throw denied('AGENT_NOT_ACTIVE');
    return node;
  };
  const anonymous = new Set(['AttestAgent', 'GetBundle']);
  const guard = (path: string, caller: Caller): void => {
    const method = path.slice(path.lastIndexOf('/') + 1);
    server.calls.push(method);
    if (server.outage !== undefined) throw server.outage;
    if (!anonymous.has(method)) agentOf(caller);
    if (!server.push && path.startsWith('/mutual.')) throw new Fault('method/unimplemented', `unknown service ${path}`);
    if (!server.delta && method === 'SyncAuthorizedEntries')
      throw new Fault('method/unimplemented', `unknown method ${path}`);
  };
  const or = async <T>(method: string, usual: () => T): Promise<T> =>
    (await (server.instead.get(method) ?? (() => usual()))(usual)) as T;

  const issue = (id: SpiffeId, csr: Buffer, ttl: number, ends = Number.POSITIVE_INFINITY) => {
    const { spki } = parseCsr(csr);
    const now = clock.now();
    const svid = server.authority.issue({ id, publicKey: spki, notBefore: now, notAfter: Math.min(now + ttl, ends) });
    return {
      svid,
      wire: { cert_chain: svid.chain, id: idToWire(id), expires_at: Math.floor((now + ttl) / 1000), hint: '' },
    };
  };

  const agentService: Service = {
    name: 'spire.api.server.agent.v1.Agent',
    methods: {
      async AttestAgent(requests: AsyncIterable<any>, _call: Call, send: Send) {
        const iterator = requests[Symbol.asyncIterator]();
        const { value: first } = await iterator.next();
        const { data, params } = first.params;
        const answers: any[] = [];
        for (const challenge of server.challenges) {
          await send({ challenge });
          answers.push(JSON.parse((await iterator.next()).value.challenge_response.toString()));
        }
        await send(
          await or('AttestAgent', () => {
            const id = attested(data, answers);
            if (server.nodes.get(id)?.banned) throw new Fault('caller/denied', 'failed to attest: agent is banned');
            const { svid, wire } = issue(id, params.csr, server.agentTtl);
            const reattestable = data.type !== 'join_token';
            server.nodes.set(id, {
              serial: svid.certificate.serial,
              nextSerial: undefined,
              banned: false,
              reattestable,
            });
            return { result: { svid: wire, reattestable } };
          }),
        );
      },
      RenewAgent: ({ params }: any, { caller }: Call) =>
        or('RenewAgent', () => {
          const node = agentOf(caller);
          if (node.reattestable) throw denied('AGENT_MUST_REATTEST');
          const { id } = (caller as any).svid;
          const { svid, wire } = issue(id, params.csr, server.agentTtl);
          node.nextSerial = svid.certificate.serial;
          return { svid: wire };
        }),
      PostStatus: () => ({}),
    },
  };

  const attested = (data: { type: string; payload: Buffer }, answers: any[]): SpiffeId => {
    if (data.type === 'join_token') {
      const token = data.payload.toString();
      if (!server.tokens.delete(token))
        throw new Fault('input/invalid', 'join token does not exist or has already been used');
      return makeId(domain, `/spire/agent/join_token/${token}`);
    }
    if (data.type === 'fake' || data.type === 'x509pop') {
      server.lastProof = { payload: data.payload, answers };
      return makeId(domain, `/spire/agent/${data.type}/node`);
    }
    throw new Fault('state/refused', `unknown attestation type ${data.type}`);
  };

  const newWit = ({ entry_id, public_key, signing_algorithm }: any): object => {
    const entry = server.entries.get(entry_id);
    if (entry === undefined)
      return { status: { code: Status.NOT_FOUND, message: 'entry not found or not authorized' } };
    const now = Math.floor(clock.now() / 1000);
    const exp = now + server.witTtl / 1000;
    const cnf = { jwk: { ...publicJwk(public_key), alg: signing_algorithm } };
    const claims = { sub: entry.spiffeId, aud: undefined, iat: now, exp, jti: `${made++}`, cnf };
    const token = server.authority.jwt(claims, { typ: 'wit+jwt', kid: server.witKeyId });
    const svid = { token, id: idToWire(entry.spiffeId), issued_at: now, expires_at: exp };
    return { status: { code: 0, message: 'OK' }, svid };
  };

  const authorized = (): Entry[] => [...server.entries.values()];
  const services: Service[] = [
    agentService,
    {
      name: 'spire.api.server.bundle.v1.Bundle',
      methods: {
        GetBundle: () => or('GetBundle', () => bundleToWire(server.bundles.get(domain)!)),
        GetFederatedBundle({ trust_domain }: { trust_domain: string }) {
          const bundle = server.bundles.get(trust_domain as TrustDomain);
          if (bundle === undefined) throw new Fault('thing/missing', 'bundle not found');
          return bundleToWire(bundle);
        },
      },
    },
    {
      name: 'spire.api.server.entry.v1.Entry',
      methods: {
        GetAuthorizedEntries: ({ output_mask }: any) => ({
          entries: authorized().map((entry) => entryToWire(entry, output_mask)),
        }),
        async SyncAuthorizedEntries(requests: AsyncIterable<any>, _call: Call, send: Send) {
          let mask: any;
          for await (const { output_mask, ids } of requests) {
            if (mask === undefined) {
              if (ids.length > 0 || !output_mask?.revision_number)
                throw new Fault('input/invalid', 'bad first message');
              mask = output_mask;
              const all = authorized();
              if (all.length <= server.pageSize) return send({ entries: all.map((entry) => entryToWire(entry, mask)) });
              for (let start = 0; start < all.length; start += server.pageSize) {
                const page = all.slice(start, start + server.pageSize);
                await send({
                  entry_revisions: page.map(({ id, revision, createdAt }) => ({
                    id,
                    revision_number: revision,
                    created_at: createdAt,
                  })),
                  more: start + server.pageSize < all.length,
                });
              }
              continue;
            }
            if (ids.length === 0 || ids.length > server.pageSize) throw new Fault('input/invalid', 'bad page of ids');
            server.calls.push(`ids:${ids.join(',')}`);
            const wanted = ids.flatMap((id: string) => server.entries.get(id) ?? []);
            // One entry a message, so that `more` matters.
            for (const [index, entry] of wanted.entries()) {
              await send({ entries: [entryToWire(entry, mask)], more: index < wanted.length - 1 });
            }
            if (wanted.length === 0) await send({});
          }
        },
      },
    },
    {
      name: 'spire.api.server.svid.v1.SVID',
      methods: {
        BatchNewX509SVID: ({ params }: any) =>
          or('BatchNewX509SVID', () => ({
            results: params.map(({ entry_id, csr }: any) => {
              const entry = server.entries.get(entry_id);
              if (entry === undefined)
                return { status: { code: Status.NOT_FOUND, message: 'entry not found or not authorized' } };
              server.issued.push(entry_id);
              return {
                status: { code: 0, message: 'OK' },
                svid: issue(entry.spiffeId, csr, entry.x509SvidTtl * 1000 || server.svidTtl).wire,
              };
            }),
          })),
        NewJWTSVID: ({ entry_id, audience }: any) =>
          or('NewJWTSVID', () => {
            const entry = server.entries.get(entry_id);
            if (entry === undefined) throw new Fault('thing/missing', 'entry not found or not authorized');
            const now = Math.floor(clock.now() / 1000);
            const exp = now + server.jwtTtl / 1000;
            const jti = `${made++}`;
            const token = server.authority.jwt({ sub: entry.spiffeId, aud: audience, iat: now, exp, jti });
            return { svid: { token, id: idToWire(entry.spiffeId), issued_at: now, expires_at: exp } };
          }),
        BatchNewWITSVID: ({ params }: any) =>
          or('BatchNewWITSVID', () => {
            if (server.witTtl === 0) throw new Fault('method/unimplemented', 'unknown method BatchNewWITSVID');
            if (params.length > 500) throw new Fault('limit/exceeded', 'too many');
            return { results: params.map(newWit) };
          }),
      },
    },
    {
      name: 'mutual.server.v1.Sync',
      methods: {
        Position: () => or('Position', () => ({ position, log_id: 'log' })),
        async Watch(requests: AsyncIterable<any>, call: Call, send: Send) {
          const iterator = requests[Symbol.asyncIterator]();
          const { start } = (await iterator.next()).value;
          server.starts.push(`${start.log_id}@${start.position}`);
          let answer = 0;
          void (async () => {
            for await (const { applied, ask } of { [Symbol.asyncIterator]: () => iterator }) {
              if (applied) server.applied.push(BigInt(applied.position));
              if (!ask) continue;
              server.calls.push('Ask');
              answer = Number(ask.id);
              for (const told of [...listeners]) told();
            }
          })().catch(() => {});
          let sent = start.log_id === 'log' ? BigInt(start.position) : 0n;
          let shown = new Map<string, Entry>();
          let bundles = new Map<TrustDomain, Bundle>();
          if (start.log_id === 'log') [shown, bundles] = [server.shown.entries, server.shown.bundles];
          for (;;) {
            if ((sent < position || answer > 0) && !server.silent) {
              const at = { position, log_id: 'log' };
              const snapshot = sent === 0n;
              const entries = authorized().filter((entry) => shown.get(entry.id) !== entry);
              const removed = [...shown.keys()].filter((id) => !server.entries.has(id));
              const newBundles = [...server.bundles.values()].filter(
                (bundle) => bundles.get(bundle.trustDomain) !== bundle,
              );
              const goneBundles = [...bundles.keys()].filter((name) => !server.bundles.has(name));
              // Each entry in a chunk of its own.
              for (const entry of entries) await send({ ...at, snapshot, entries: [entryToWire(entry)] });
              await send({
                ...at,
                snapshot,
                complete: true,
                removed_entry_ids: removed,
                bundles: newBundles.map((bundle) => bundleToWire(bundle)),
                removed_trust_domains: goneBundles,
                answer,
              });
              sent = position;
              answer = 0;
              shown = new Map(server.entries);
              bundles = new Map(server.bundles);
              Object.assign(server.shown, { entries: shown, bundles });
            }
            const ended = await new Promise<unknown>((resolve) => {
              const told = (): void => {
                listeners.delete(told);
                resolve(undefined);
              };
              listeners.add(told);
              server.endWatch.add(resolve);
              call.signal.addEventListener('abort', () => resolve(call.signal.reason), { once: true });
            });
            if (ended !== undefined) throw ended;
            // As the real one: a standing stream ends when the agent may no longer have it.
            agentOf(call.caller);
          }
        },
      },
    },
  ];
  return server;
}

export const id = (path: string): SpiffeId => parseId(`spiffe://example.org${path}`);
