/**
 * A real server in this process: real sockets, an in-memory database, keys in memory, and a clock that the test drives.
 * Callers of every kind: the admin socket, TLS without a certificate, TLS with whatever SVID a test has.
 */
import type { KeyObject } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { readServerOptions, type ServerOptions } from '../../server/config.ts';
import type { SigningForTests } from '../../server/issue/signing-workers.ts';
import { type RunningServer, startServer } from '../../server/server.ts';
import { openStore } from '../../server/store/open.ts';
import type { Store } from '../../server/store/store.ts';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { type Certificate, parseCertificate } from '../../src/crypto/certificate.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import { Fault } from '../../src/errors.ts';
import type { KeyStore } from '../../src/keys/key-store.ts';
import type { LoadPackage } from '../../src/keys/load-package.ts';
import { memoryKeys } from '../../src/keys/memory.ts';
import { createLog } from '../../src/log.ts';
import { type Channel, connectTls, connectUnix } from '../../src/rpc/connect.ts';
import { type Random, systemRandom } from '../../src/run/random.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseId, parseTrustDomain, type SpiffeId, serverId } from '../../src/spiffe/id.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { bundleFromWire, type WireBundle } from '../../src/wire/bundle.ts';
import { idToWire, selectorToWire, type WireId } from '../../src/wire/id.ts';
import { type DrivenClock, drivenClock } from './clock.ts';

/** Short names of the services. */
export const api = {
  agent: 'spire.api.server.agent.v1.Agent',
  bundle: 'spire.api.server.bundle.v1.Bundle',
  debug: 'spire.api.server.debug.v1.Debug',
  entry: 'spire.api.server.entry.v1.Entry',
  health: 'grpc.health.v1.Health',
  localAuthority: 'spire.api.server.localauthority.v1.LocalAuthority',
  logger: 'spire.api.server.logger.v1.Logger',
  rotation: 'mutual.server.v1.Rotation',
  svid: 'spire.api.server.svid.v1.SVID',
  revocation: 'mutual.server.v1.Revocation',
  sync: 'mutual.server.v1.Sync',
  trustDomain: 'spire.api.server.trustdomain.v1.TrustDomain',
} as const;
type Api = keyof typeof api;

export const td = parseTrustDomain('example.org');
export const id = (path: string): SpiffeId => parseId(`spiffe://${td}${path}`);
export const wireId = (path: string): WireId => idToWire(id(path));
export const wireSelectors = (...texts: string[]) => texts.map((text) => selectorToWire(parseSelector(text)));

/** A certificate chain, leaf first, and its key. */
export interface Credentials {
  readonly chain: readonly Buffer[];
  readonly key: KeyObject;
}

export interface Svid extends Credentials {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
}

/** A channel with the services by their short names. */
export interface Peer {
  readonly channel: Channel;
  // biome-ignore lint/suspicious/noExplicitAny: messages of every kind.
  call(service: Api, method: string, request?: object): Promise<any>;
  /** What the call was refused with. Throws when it worked. */
  refusal(service: Api, method: string, request?: object): Promise<Fault>;
}

export interface AgentPeer extends Peer {
  readonly id: SpiffeId;
  readonly svid: Svid;
}

export interface TestServer {
  readonly clock: DrivenClock;
  readonly dir: string;
  readonly options: ServerOptions;
  readonly running: RunningServer;
  readonly store: Store;
  readonly keys: KeyStore;
  /** Every line that was logged, as JSON. */
  readonly lines: readonly string[];
  /** Resolves with the next line that matches: for what the server does by itself, after the test moved time. */
  logged(pattern: RegExp): Promise<string>;
  /** Through the admin socket. */
  readonly admin: Peer;
  /** Through TLS without a certificate. */
  readonly nobody: Peer;
  /** Through TLS with a certificate. */
  as(credentials: Credentials): Peer;
  bundle(): Promise<Bundle>;
  /** Attests a node with a join token; it calls as itself. */
  attest(token?: string): Promise<AgentPeer>;
  /** An SVID that an operator mints. */
  mint(path: string, more?: object): Promise<Svid>;
  /** Creates an entry; gives it as the server tells it. */
  // biome-ignore lint/suspicious/noExplicitAny: a message.
  entry(path: string, parent: SpiffeId, more?: object): Promise<any>;
  stop(): Promise<void>;
  /** Starts again on the same store and keys. */
  restart(flags?: Readonly<Record<string, unknown>>): Promise<void>;
}

export interface TestServerWishes {
  /** Options by their flags' names. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly clock?: DrivenClock;
  readonly store?: Store;
  readonly keys?: KeyStore;
  readonly random?: Random;
  /** Where optional packages come from. */
  readonly load?: LoadPackage | undefined;
  readonly upstreamPatience?: number;
  /** Where lines are put: for a start that is not over yet. */
  readonly lines?: string[];
  readonly signing?: SigningForTests | undefined;
}

/** Milliseconds that a test waits for a line, however loaded the machine is. */
const longestWait = 60_000;
const unlimited = { attest: 0, csr: 0, jwt: 0, wit: 0, push: 0, post: 0 };

/** Starts a server; it is stopped, and its folder removed, when the test ends. */
export async function testServer(test: TestContext, wishes: TestServerWishes = {}): Promise<TestServer> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const clock = wishes.clock ?? drivenClock();
  const random = wishes.random ?? systemRandom;
  const keys = wishes.keys ?? memoryKeys();
  const store = wishes.store ?? (await openStore({ url: 'sqlite::memory:' }));
  const lasting: Store = { ...store, close: async () => {} };
  const lines = wishes.lines ?? [];
  const listeners = new Set<(line: string) => void>();
  const write = (line: string): void => {
    lines.push(line);
    for (const listener of listeners) listener(line);
  };
  const log = createLog({ level: 'trace', format: 'json', clock, write });
  let options: ServerOptions | undefined;
  let running: RunningServer | undefined;
  let channels: Channel[] = [];
  let peers: { admin?: Peer; nobody?: Peer } = {};

  async function start(flags: Readonly<Record<string, unknown>>): Promise<void> {
    const limits = Object.fromEntries(Object.entries(unlimited).map(([name, rate]) => [`rate-limits-${name}`, rate]));
    const read = await readServerOptions({
      flags: { trustDomain: td, dataDir: join(dir, 'data'), listen: '127.0.0.1:0', ...limits, ...flags },
    });
    options = read.options;
    const { load, upstreamPatience, signing } = wishes;
    const ports = { clock, random, log, keys, store: lasting, load, upstreamPatience, signing };
    running = await startServer(options, ports);
  }
  async function stop(): Promise<void> {
    for (const channel of channels) channel.close();
    channels = [];
    peers = {};
    await running?.close();
    running = undefined;
  }
  test.after(async () => {
    await stop();
    if (wishes.store === undefined) await store.close();
    await rm(dir, { recursive: true, force: true });
  });

  function peer(channel: Channel): Peer {
    channels.push(channel);
    return {
      channel,
      call: (service, method, request = {}) => channel.unary(api[service], method, request),
      refusal: (service, method, request = {}) => refusalOf(channel.unary(api[service], method, request)),
    };
  }
  function tls(credentials?: Credentials): Peer {
    const { address } = running as RunningServer;
    const svid = credentials && { chain: credentials.chain, key: credentials.key };
    return peer(
      connectTls({
        host: address.host,
        port: address.port,
        trustDomain: td,
        bundle: () => [],
        svid: () => svid,
        expect: serverId(td),
        insecure: true,
        clock,
      }),
    );
  }

  const server: TestServer = {
    clock,
    dir,
    store,
    keys,
    lines,
    logged: (pattern) =>
      new Promise((resolve, reject) => {
        const end = (): void => {
          clearTimeout(timer);
          listeners.delete(listen);
        };
        const listen = (line: string): void => {
          if (!pattern.test(line)) return;
          end();
          resolve(line);
        };
        const timer = setTimeout(() => {
          end();
          reject(new Error(`no line like ${pattern} within ${longestWait / 1000} s; the last is ${lines.at(-1)}`));
        }, longestWait);
        listeners.add(listen);
      }),
    get options() {
      return options as ServerOptions;
    },
    get running() {
      return running as RunningServer;
    },
    get admin() {
      peers.admin ??= peer(connectUnix((running as RunningServer).adminSocket));
      return peers.admin;
    },
    get nobody() {
      peers.nobody ??= tls();
      return peers.nobody;
    },
    as: tls,
    async bundle() {
      return bundleFromWire((await server.admin.call('bundle', 'GetBundle')) as WireBundle);
    },
    async attest(token) {
      const { value } = await server.admin.call('agent', 'CreateJoinToken', { ttl: 600, token: token ?? '' });
      const svid = await attestWith(server.nobody.channel, 'join_token', Buffer.from(value));
      return { ...tls(svid), id: svid.id, svid };
    },
    async mint(path, more = {}) {
      const { privateKey } = generateKey('ec-p256');
      const csr = makeCsr(privateKey, { uri: id(path) });
      const { svid } = await server.admin.call('svid', 'MintX509SVID', { csr, ...more });
      return svidOf(svid, privateKey);
    },
    async entry(path, parent, more = {}) {
      const entry = {
        spiffe_id: wireId(path),
        parent_id: idToWire(parent),
        selectors: wireSelectors('unix:uid:1000'),
        ...more,
      };
      const { results } = await server.admin.call('entry', 'BatchCreateEntry', { entries: [entry] });
      if (results[0].status.code !== 0) throw new Error(results[0].status.message);
      return results[0].entry;
    },
    stop,
    async restart(flags = wishes.flags ?? {}) {
      await stop();
      await start(flags);
    },
  };
  await start(wishes.flags ?? {});
  return server;
}

export function svidOf(wire: { cert_chain: Buffer[]; id: WireId }, key: KeyObject): Svid {
  return {
    id: parseId(`spiffe://${wire.id.trust_domain}${wire.id.path}`),
    chain: wire.cert_chain,
    leaf: parseCertificate(wire.cert_chain[0] as Buffer),
    key,
  };
}

/** Attests over a channel; `answer` responds to a challenge. */
export async function attestWith(
  channel: Channel,
  type: string,
  payload: Buffer,
  answer: (challenge: Buffer) => Buffer | Promise<Buffer> = () => Buffer.alloc(0),
): Promise<Svid & { readonly reattestable: boolean }> {
  const { privateKey } = generateKey('ec-p256');
  const talk = channel.bidi(api.agent, 'AttestAgent');
  void talk.send({ params: { data: { type, payload }, params: { csr: makeCsr(privateKey) } } });
  for await (const response of talk.responses) {
    if (response.result) {
      talk.end();
      return { ...svidOf(response.result.svid, privateKey), reattestable: response.result.reattestable };
    }
    void talk.send({ challenge_response: await answer(response.challenge) });
  }
  throw new Error('the attestation ended without a result');
}

/** What a promise is rejected with, which has to be a Fault. */
export async function refusalOf(outcome: Promise<unknown>): Promise<Fault> {
  let value: unknown;
  try {
    value = await outcome;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error(`it was not refused: ${JSON.stringify(value)?.slice(0, 200)}`);
}
