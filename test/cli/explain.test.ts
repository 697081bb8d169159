/** `mutual explain` names the cause in its first line: failures prepared on a real server and agent, one each. */
import { equal, match, ok } from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { run } from '../../cli/run.ts';
import type { Fault } from '../../src/errors.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { idToWire, selectorToWire } from '../../src/wire/id.ts';
import { gateTo } from '../peers/support/gate.ts';
import { freePort } from '../peers/support/place.ts';
import { header, type Pair, type PairOptions, startPair } from '../support/pair.ts';
import { testPorts } from './support/ports.ts';

const agentApi = 'spire.api.server.agent.v1.Agent';
const uid = process.getuid?.() ?? 0;
const self = String(process.pid);
const selectors = (...texts: string[]) => texts.map((text) => selectorToWire(parseSelector(text)));

interface Ran {
  readonly first: string;
  readonly all: string;
  readonly exit: number;
}

async function explain(pair: Pair, ...words: string[]): Promise<Ran> {
  const ports = testPorts({ clock: pair.clock });
  const exit = await run(['explain', '--admin-socket', pair.agent.adminSocket, ...words], ports);
  const all = ports.printed.out + ports.printed.err;
  return { first: all.split('\n')[0]!, all, exit };
}

/** A process that only waits, with a variable in its environment. */
async function waiting(t: TestContext, env: Record<string, string>): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['-e', 'process.stdout.write("."); setInterval(() => {}, 1e6)'], {
    env,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout!, 'data');
  return child;
}

/** A call of this process that has to be refused. */
async function refused(pair: Pair, metadata: Record<string, string>, request: object = { audience: ['db'] }) {
  await pair.workload.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', request, { metadata }).then(
    () => ok(false, 'the call was to be refused'),
    (fault: Fault) => fault,
  );
}

async function gone(pair: Pair, method: 'BanAgent' | 'DeleteAgent'): Promise<void> {
  const end = pair.agent.closed.catch(() => {});
  await pair.admin.call(agentApi, method, { id: idToWire(pair.agent.id) });
  await end;
}

const cases: readonly {
  readonly name: string;
  readonly options?: PairOptions;
  /** Breaks something; gives the words to ask with. */
  prepare(pair: Pair, t: TestContext): Promise<readonly string[]>;
  readonly says: RegExp;
}[] = [
  {
    name: 'no entry at all belongs to the agent',
    prepare: async () => ['--pid', self],
    says: /^no registration entry of a workload belongs to this agent \(spiffe:\/\/example\.org\/spire\/agent\//,
  },
  {
    name: 'the nearest entry asks for one selector more',
    async prepare(pair) {
      await pair.admin.createEntry('/web', { selectors: selectors(`unix:uid:${uid}`, 'docker:label:app:web') });
      await pair.admin.createEntry('/far', { selectors: selectors('unix:uid:65000') });
      return ['--pid', self];
    },
    says: /^process \d+ lacks docker:label:app:web, which the nearest entry \(spiffe:\/\/example\.org\/web\) asks for$/,
  },
  {
    name: 'the entries are for other users altogether',
    async prepare(pair) {
      await pair.admin.createEntry('/far', { selectors: selectors('unix:uid:65000') });
      return ['--pid', self];
    },
    says: /^none of the \d+ entries of this agent has a selector that process \d+ has$/,
  },
  {
    name: 'the entry has expired',
    async prepare(pair) {
      const expires_at = String(Math.floor(pair.clock.now() / 1000) + 60);
      await pair.admin.createEntry('/short', { expires_at });
      const stream = pair.watchX509();
      await stream.next();
      await pair.pass(stream.next().catch(() => undefined));
      await stream.close();
      return ['--pid', self];
    },
    says: /^the entry for spiffe:\/\/example\.org\/short matches process \d+, but it expired at \d{4}-.*Z$/,
  },
  {
    name: 'the entry hangs under another node',
    async prepare(pair) {
      const parent_id = idToWire(parseId('spiffe://example.org/other-node'));
      await pair.admin.createEntry('/web', { parent_id });
      return ['--pid', self, '--server-admin-socket', pair.server.adminSocket];
    },
    says: /^the entry for spiffe:\/\/example\.org\/web that matches hangs under spiffe:\/\/example\.org\/other-node, which is not this agent/,
  },
  {
    name: 'the server is away, and what it learnt meanwhile is not known',
    async prepare(pair) {
      await pair.stopServer();
      await pair.clock.advance(1000);
      await pair.pass(refused(pair, header), 100);
      return ['--pid', self];
    },
    says: /^no entry that the agent knows matches process \d+, and it cannot follow its server \(up to date \d+ s ago\): cannot reach/,
  },
  {
    name: 'the server has banned the agent, which ended',
    async prepare(pair) {
      await gone(pair, 'BanAgent');
      return ['--pid', self];
    },
    says: /^error: the agent ended at .*: the server refuses this agent: the server has banned this node$/,
  },
  {
    name: 'the agent was evicted and ended',
    async prepare(pair) {
      await gone(pair, 'DeleteAgent');
      return ['--pid', self];
    },
    says: /^error: the agent ended at .*: the server refuses this agent: the server does not know this node \(it was evicted\)$/,
  },
  {
    name: 'the agent was stopped by somebody',
    async prepare(pair) {
      await pair.stopAgent();
      return ['--pid', self];
    },
    says: /^error: no agent answers on socket .*: there is no such file$/,
  },
  {
    name: 'the call had no security header; without a process the last refused one is explained',
    async prepare(pair) {
      await pair.admin.createEntry('/web');
      await refused(pair, {});
      return [];
    },
    says: /^the last call of process \d+, 0 s ago, had no security header "workload\.spiffe\.io: true"$/,
  },
  {
    name: 'the process asked for an identity of somebody else',
    async prepare(pair) {
      await pair.admin.createEntry('/web');
      await refused(pair, header, { audience: ['db'], spiffe_id: 'spiffe://example.org/db' });
      return [];
    },
    says: /^process \d+ is entitled to spiffe:\/\/example\.org\/web, but its call 0 s ago was refused: .*not entitled to "spiffe:\/\/example\.org\/db"$/,
  },
  {
    name: 'there is no such process',
    prepare: async () => ['--pid', '2147483647'],
    says: /^there is no process 2147483647 that the agent can see$/,
  },
  {
    name: 'the entry is for a store',
    async prepare(pair) {
      await pair.admin.createEntry('/stored', { store_svid: true });
      return ['--pid', self];
    },
    says: /^the entry for spiffe:\/\/example\.org\/stored matches process \d+, but its SVIDs go to a store/,
  },
  {
    name: 'an attestor failed',
    options: { agent: { workloadAttestorsUnixDiscoverWorkloadPath: true, workloadAttestorsUnixWorkloadSizeLimit: 1 } },
    async prepare(pair) {
      await pair.admin.createEntry('/web');
      return ['--pid', self];
    },
    says: /^the attestor unix could not tell what process \d+ is: the program has \d+ bytes, more than the limit of 1/,
  },
  {
    name: 'the process looks for the Workload API elsewhere',
    async prepare(pair, t) {
      await pair.admin.createEntry('/web');
      const child = await waiting(t, { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/spire/sockets/agent.sock' });
      return ['--pid', String(child.pid)];
    },
    says: /^process \d+ looks for the Workload API at unix:\/\/\/run\/spire\/sockets\/agent\.sock, which is not the socket of this agent$/,
  },
];

for (const { name, options, prepare, says } of cases) {
  test(`explain: ${name}`, async (t) => {
    const pair = await startPair(t, options);
    const words = await prepare(pair, t);
    const { first, all, exit } = await explain(pair, ...words);
    match(first, says, all);
    equal(exit, 1);
  });
}

/** A server behind a gate that can be shut: then the agent runs on and cannot reach it, and operators still can. */
async function gated(t: TestContext) {
  const port = await freePort();
  const gate = await gateTo(port);
  t.after(() => gate.shut().catch(() => {}));
  const pair = await startPair(t, {
    server: { listen: `127.0.0.1:${port}` },
    agent: { server: `127.0.0.1:${gate.port}` },
  });
  return {
    pair,
    async shut() {
      await gate.shut();
      // Until the agent has noticed.
      const noticed = (async () => {
        while (pair.agent.status().outage === undefined) await new Promise((resolve) => setImmediate(resolve));
      })();
      await pair.pass(noticed, 100);
    },
    asked: (...words: string[]) =>
      pair.pass(explain(pair, '--pid', self, '--output', 'json', ...words), 100).then(({ all, exit }) => {
        equal(exit, 1, all);
        return JSON.parse(all);
      }),
  };
}

test('explain: an entry that matches, for which no SVID could be got', async (t) => {
  const { pair, shut, asked } = await gated(t);
  await pair.admin.createEntry('/web', { additional_attributes: { disable_x509_svid_prefetch: true } });
  while (pair.agent.status().entries < 2) await new Promise((resolve) => setImmediate(resolve));
  await shut();
  const { cause, summary, advice } = await asked();
  equal(cause, 'svid-missing');
  match(summary, /^process \d+ is entitled to spiffe:\/\/example\.org\/web, but no SVID could be got for it: ./);
  match(advice, /server runs and can be reached/);
});

test('explain: an entry that the server has and the agent has not got yet', async (t) => {
  const { pair, shut, asked } = await gated(t);
  await shut();
  await pair.admin.createEntry('/web');
  equal((await asked()).cause, 'server-unreachable');
  const { cause, summary, advice } = await asked('--server-admin-socket', pair.server.adminSocket);
  equal(cause, 'agent-behind');
  match(summary, /^the agent is behind its server: it has not got the entry for spiffe:\/\/example\.org\/web, since ./);
  match(advice, /mutual agent status/);
});

test('explain: the server has banned an agent that cannot hear of it', async (t) => {
  const { pair, shut, asked } = await gated(t);
  await shut();
  await pair.admin.call(agentApi, 'BanAgent', { id: idToWire(pair.agent.id) });
  const { cause, summary, advice } = await asked('--server-admin-socket', pair.server.adminSocket);
  equal(cause, 'agent-banned');
  equal(summary, `the server has banned this agent (${pair.agent.id})`);
  match(advice, new RegExp(`mutual agent evict --spiffe-id ${pair.agent.id};`));
});

test('explain: nothing is wrong, and selectors do in place of a process', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  await stream.next();
  await stream.close();
  const asked = await explain(pair, '--pid', self, '--output', 'json');
  equal(asked.exit, 0, asked.all);
  const told = JSON.parse(asked.all);
  equal(told.cause, 'served');
  equal(told.attestors[0].name, 'unix');
  ok(told.attestors[0].selectors.some(({ value }: { value: string }) => value === `uid:${uid}`));
  const given = await pair.pass(explain(pair, '--selector', `unix:uid:${uid}`), 100);
  equal(given.exit, 0);
  match(given.first, /^nothing is wrong: a process with these selectors is entitled to spiffe:\/\/example\.org\/web$/);
  const ours = await waiting(t, { SPIFFE_ENDPOINT_SOCKET: `unix://${pair.agent.socket}` });
  equal((await pair.pass(explain(pair, '--pid', String(ours.pid)), 100)).exit, 0);
});

test('explain: an agent is told nothing of entries of other nodes', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/hidden', { parent_id: idToWire(parseId('spiffe://example.org/other-node')) });
  const { first, all } = await explain(pair, '--pid', self, '--output', 'json');
  match(first, /"cause":"no-entries"/);
  equal(all.includes('hidden'), false);
});

test('explain: both a process and selectors are a mistake', async (t) => {
  const pair = await startPair(t);
  const { first, exit } = await explain(pair, '--pid', self, '--selector', 'unix:uid:1');
  match(first, /^error: --pid and --selector are both given$/);
  equal(exit, 2);
});
