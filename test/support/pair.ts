/**
 * A server and an agent in this process, on real sockets and real files, with one clock that the test drives. What a test
 * waits for is always an event (a message on a stream, a call's answer), never a span of time.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Agent, startAgent } from '../../agent/agent.ts';
import { readAgentOptions } from '../../agent/config.ts';
import { readServerOptions } from '../../server/config.ts';
import { type RunningServer, startServer } from '../../server/server.ts';
import { type Certificate, parseCertificate, splitCertificates } from '../../src/crypto/certificate.ts';
import { createLog } from '../../src/log.ts';
import { type Channel, connectUnix } from '../../src/rpc/connect.ts';
import { writeFileAtomic } from '../../src/run/file.ts';
import { systemRandom } from '../../src/run/random.ts';
import { printBundlePem } from '../../src/spiffe/bundle-jwks.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { bundleFromWire } from '../../src/wire/bundle.ts';
import { idToWire, selectorToWire } from '../../src/wire/id.ts';
import { type DrivenClock, drivenClock, settle } from './clock.ts';

export interface PairOptions {
  /** Options of each program by their flags' names. */
  readonly server?: Readonly<Record<string, unknown>>;
  readonly agent?: Readonly<Record<string, unknown>>;
  /** Of another pair, when they have to do with each other. */
  readonly clock?: DrivenClock;
}

export interface SvidUpdate {
  readonly spiffeId: string;
  readonly leaf: Certificate;
  /** What stands between the leaf and an authority of the bundle. */
  readonly intermediates: readonly Certificate[];
  readonly bundle: readonly Certificate[];
}

export interface Pair {
  readonly clock: DrivenClock;
  readonly server: RunningServer;
  readonly agent: Agent;
  /** The server's admin socket. */
  readonly admin: Admin;
  /** Every line that either program logged. */
  readonly lines: readonly string[];
  startAgent(): Promise<Agent>;
  stopAgent(): Promise<void>;
  startServer(): Promise<RunningServer>;
  stopServer(): Promise<void>;
  /** An open FetchX509SVID stream of this process; `next` gives the next complete update. */
  watchX509(): { next(): Promise<readonly SvidUpdate[]>; close(): Promise<void> };
  workload: Channel;
  /**
   * Moves the clock on, `step` milliseconds at a time, until `event` has happened: for what needs both time and real
   * connections. Between two steps calls go through both programs and back, so that what a step began can end.
   */
  pass<T>(event: Promise<T>, step?: number): Promise<T>;
}

export interface Admin {
  // biome-ignore lint/suspicious/noExplicitAny: each test knows the message it asks for.
  call(service: string, method: string, request: object): Promise<any>;
  /** Creates an entry for the processes of this test's user; gives its id. */
  createEntry(path: string, more?: object): Promise<string>;
}

export const header = { 'workload.spiffe.io': 'true' };
/** The node alias under which entries are made. */
export const node = 'spiffe://example.org/node';
const agentApi = 'spire.api.server.agent.v1.Agent';

/** Starts both; everything is stopped and removed when the test ends. */
export async function startPair(test: TestContext, options: PairOptions = {}): Promise<Pair> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const clock = options.clock ?? drivenClock(Date.now());
  const lines: string[] = [];
  const log = () => createLog({ level: 'debug', format: 'text', clock, write: (line) => lines.push(line) });
  let server: RunningServer | undefined;
  let agent: Agent | undefined;
  let adminChannel: Channel | undefined;
  let workloadChannel: Channel | undefined;
  let listen = '127.0.0.1:0';

  test.after(async () => {
    workloadChannel?.close();
    adminChannel?.close();
    await agent?.close();
    await server?.close();
    await rm(dir, { recursive: true, force: true });
  });

  /** Lets what time began come to its end: calls through both programs and the store, until no file is being written. */
  async function quiet(): Promise<void> {
    for (let still = 0; still < 3; ) {
      const trips = [
        pair.admin.call('spire.api.server.trustdomain.v1.TrustDomain', 'ListFederationRelationships', {}),
        pair.workload.unary('grpc.health.v1.Health', 'Check', {}),
      ];
      // Either program may be down in a test; then there is nothing of its own to wait for.
      await Promise.allSettled(trips);
      await settle(10);
      still = process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq')) ? 0 : still + 1;
    }
  }

  const pair: Pair = {
    clock,
    lines,
    get server() {
      return server as RunningServer;
    },
    get agent() {
      return agent as Agent;
    },
    get workload() {
      workloadChannel ??= connectUnix((agent as Agent).socket);
      return workloadChannel;
    },
    admin: {
      call(service, method, request) {
        adminChannel ??= connectUnix((server as RunningServer).adminSocket);
        return adminChannel.unary(service, method, request);
      },
      async createEntry(path, more = {}) {
        const entry = {
          spiffe_id: idToWire(parseId(`spiffe://example.org${path}`)),
          parent_id: idToWire(parseId(node)),
          selectors: [selectorToWire(parseSelector(`unix:uid:${process.getuid?.()}`))],
          ...more,
        };
        const { results } = await pair.admin.call('spire.api.server.entry.v1.Entry', 'BatchCreateEntry', {
          entries: [entry],
        });
        if (results[0].status.code !== 0) throw new Error(results[0].status.message);
        return results[0].entry.id;
      },
    },
    async startServer() {
      const flags = { trustDomain: 'example.org', dataDir: join(dir, 'server'), listen, ...options.server };
      const read = await readServerOptions({ flags });
      server = await startServer(read.options, { clock, random: systemRandom, log: log() });
      // After a restart agents must find it where it was.
      listen = `${server.address.host}:${server.address.port}`;
      return server;
    },
    async stopServer() {
      adminChannel?.close();
      adminChannel = undefined;
      await server?.close();
    },
    async startAgent() {
      const flags = {
        trustDomain: 'example.org',
        dataDir: join(dir, 'agent'),
        server: listen,
        trustBundle: join(dir, 'bundle.pem'),
        ...options.agent,
      };
      const read = await readAgentOptions({ flags });
      agent = await startAgent(read.options, { clock, random: systemRandom, log: log() });
      return agent;
    },
    async stopAgent() {
      workloadChannel?.close();
      workloadChannel = undefined;
      await agent?.close();
    },
    async pass(event, step = 1000) {
      let over = false;
      const end = event.finally(() => {
        over = true;
      });
      end.catch(() => {});
      while (!over) {
        await clock.advance(step);
        await quiet();
      }
      return end;
    },
    watchX509() {
      const stream = pair.workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header });
      return {
        async next() {
          const { value, done } = await stream.next();
          if (done) throw new Error('the stream ended');
          return value.svids.map((svid: { spiffe_id: string; x509_svid: Buffer; bundle: Buffer }) => {
            const [leaf, ...intermediates] = splitCertificates(svid.x509_svid).map(parseCertificate);
            const bundle = splitCertificates(svid.bundle).map(parseCertificate);
            return { spiffeId: svid.spiffe_id, leaf: leaf as Certificate, intermediates, bundle };
          });
        },
        async close() {
          await stream.return?.();
        },
      };
    },
  };

  await pair.startServer();
  const bundle = bundleFromWire(await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {}));
  await writeFileAtomic(join(dir, 'bundle.pem'), printBundlePem(bundle), 0o644);
  const token = await pair.admin.call(agentApi, 'CreateJoinToken', { ttl: 600, agent_id: idToWire(parseId(node)) });
  const first = { ...options, agent: { joinToken: token.value, ...options.agent } };
  Object.assign(options, first);
  await pair.startAgent();
  return pair;
}
