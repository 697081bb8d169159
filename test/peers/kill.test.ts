/**
 * SIGKILL of our server and of our agent at random points of 200 runs, while they start, write, attest, renew and rotate.
 * Each start must find a consistent store: what was acknowledged is there once, what was deleted stays away, no file is
 * half written or readable by others, no authority, node or identity is lost or doubled.
 */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before, describe, type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { type Channel, connectUnix } from '../../src/rpc/connect.ts';
import { peerPath } from '../../tools/peers.ts';
import { mutualProgram } from './support/mutual.ts';
import { makeNodeIdentity, type NodeIdentity } from './support/node-identity.ts';
import { admin, createEntry, joinToken, type Server, startServer, writeBundle } from './support/pair.ts';
import { freePort, makePlace, type Place } from './support/place.ts';
import { type Program, run } from './support/program.ts';
import { until } from './support/until.ts';

const runsOfALane = 50;
const alias = 'spiffe://example.org/node';

/** Random from a seed that a failing run prints. */
function drawer(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * below;
  };
}

/** Kills the program after a while; it must not have ended by itself before. */
async function killAfter(program: Program, delayMs: number): Promise<void> {
  await pause(delayMs);
  assert.equal(program.ending(), undefined, `${program.name} ended by itself\n${program.output()}`);
  await program.stop('SIGKILL');
}

/** No file in the data directory is readable by others, and those in JSON are whole. */
function checkFiles(dir: string): void {
  for (const name of readdirSync(dir, { recursive: true, encoding: 'utf8' })) {
    const path = join(dir, name);
    const found = statSync(path, { throwIfNoEntry: false });
    if (!found?.isFile()) continue;
    assert.equal(found.mode & 0o077, 0, `${path} has mode ${(found.mode & 0o777).toString(8)}`);
    if (name.endsWith('.json')) JSON.parse(readFileSync(path, 'utf8'));
  }
}

const entryService = 'spire.api.server.entry.v1.Entry';
const bundleService = 'spire.api.server.bundle.v1.Bundle';
const agentService = 'spire.api.server.agent.v1.Agent';

/** What a lane of server runs knows to be stored. */
interface Ledger {
  readonly created: Set<string>;
  readonly deleted: Set<string>;
  readonly nodes: Set<string>;
  /** X.509 and JWT authorities seen in the bundle, with the end of their life in Unix seconds. */
  readonly authorities: Map<string, number>;
}

/** Compares the store with what was acknowledged. */
async function audit(channel: Channel, ledger: Ledger): Promise<void> {
  const { entries } = await channel.unary(entryService, 'ListEntries', {}, { deadlineMs: 60_000 });
  const ids: string[] = entries.map((entry: { id: string }) => entry.id);
  assert.equal(new Set(ids).size, ids.length, 'no entry is there twice');
  const there = new Set(ids);
  for (const id of ledger.created) assert.ok(there.has(id), `entry ${id} was acknowledged and is lost`);
  for (const id of ledger.deleted) assert.ok(!there.has(id), `entry ${id} was deleted and is back`);

  const { agents } = await channel.unary(agentService, 'ListAgents', {}, { deadlineMs: 60_000 });
  const paths: string[] = agents.map((agent: { id: { path: string } }) => agent.id.path);
  assert.equal(new Set(paths).size, paths.length, 'no node is there twice');
  for (const node of ledger.nodes) assert.ok(paths.includes(node), `node ${node} was attested and is lost`);

  const bundle = await channel.unary(bundleService, 'GetBundle', {}, { deadlineMs: 60_000 });
  const held = new Set<string>([
    ...bundle.x509_authorities.map(({ asn1 }: { asn1: Buffer }) => asn1.toString('base64')),
    ...bundle.jwt_authorities.map((key: { key_id: string }) => key.key_id),
  ]);
  assert.equal(
    held.size,
    bundle.x509_authorities.length + bundle.jwt_authorities.length,
    'no authority is there twice',
  );
  const now = Date.now() / 1000;
  for (const [authority, end] of ledger.authorities)
    assert.ok(end < now || held.has(authority), 'an authority that signed is gone from the bundle');
  // Lives are 40 s and authorities are not pruned earlier; what is seen now must be seen until then.
  for (const authority of held) if (!ledger.authorities.has(authority)) ledger.authorities.set(authority, now + 20);
}

async function serverLane(t: TestContext, place: Place, name: string): Promise<void> {
  const seed = Date.now() >>> 0;
  t.diagnostic(`seed ${seed}`);
  const draw = drawer(seed);
  const dir = place.path(name, 'data');
  const adminSocket = place.path(name, 'api.sock');
  const port = await freePort();
  const config = place.path(name, 'server.json');
  const rateLimits = { attest: 0, csr: 0, jwt: 0 };
  writeFileSync(
    config,
    JSON.stringify({ trustDomain: 'example.org', caTtl: '40s', defaultX509SvidTtl: '10s', rateLimits }),
  );
  const args = ['server', 'run', '--config', config, '--data-dir', dir, '--listen', `127.0.0.1:${port}`];
  const ledger: Ledger = { created: new Set(), deleted: new Set(), nodes: new Set(), authorities: new Map() };

  let acknowledged = 0;
  /** Creates and now and then deletes entries, one after the other, until the server is gone. */
  async function write(channel: Channel, round: number): Promise<void> {
    const answer = { deadlineMs: 60_000 };
    for (let n = 0; ; n++) {
      const id = `${name}-${round}-${n}`;
      const entry = {
        id,
        spiffe_id: { trust_domain: 'example.org', path: `/${id}` },
        parent_id: { trust_domain: 'example.org', path: '/node' },
        selectors: [{ type: 'unix', value: `uid:${n}` }],
      };
      try {
        const made = await channel.unary(entryService, 'BatchCreateEntry', { entries: [entry] }, answer);
        if (made.results[0].status.code === 0) ledger.created.add(id);
        acknowledged += 1;
        if (n % 5 === 4) {
          const gone = `${name}-${round}-${n - 2}`;
          ledger.created.delete(gone); // from the asking on it may be either
          await channel.unary(entryService, 'BatchDeleteEntry', { ids: [gone] }, answer);
          ledger.deleted.add(gone);
        }
      } catch {
        return;
      }
    }
  }
  async function attest(): Promise<void> {
    const load = ['attest', '-count', '1', '-admin', adminSocket, '-server', `127.0.0.1:${port}`];
    const { code, stdout } = await run(peerPath('peer-load'), load, { deadlineMs: 5000 });
    if (code === 0) ledger.nodes.add(new URL(JSON.parse(stdout).id).pathname);
  }

  for (let round = 0; round <= runsOfALane; round++) {
    const program = await place.start(name, process.execPath, [mutualProgram, ...args, '--admin-socket', adminSocket]);
    if (round < runsOfALane && draw(1) < 0.4) {
      await killAfter(program, draw(700));
      continue;
    }
    const channel = connectUnix(adminSocket);
    try {
      await until(`${name} answers in run ${round}`, 60_000, async () => {
        assert.equal(program.ending(), undefined, `run ${round}: ${program.output()}`);
        channel.reconnect();
        return channel.unary(bundleService, 'GetBundle', {}, { deadlineMs: 2000 });
      });
      await audit(channel, ledger);
      checkFiles(dir);
      if (round === runsOfALane) break;
      const work = [write(channel, round), attest()];
      // However slow the machine is, some writes are acknowledged, and a node is attested.
      const enough = acknowledged + draw(6);
      await until(`writes of run ${round} are acknowledged`, 60_000, () => acknowledged >= enough, 5);
      if (ledger.nodes.size === 0) await work[1];
      await killAfter(program, draw(300));
      await Promise.all(work);
    } finally {
      channel.close();
    }
  }
  assert.ok(ledger.created.size > runsOfALane, `${ledger.created.size} entries were acknowledged`);
  assert.ok(ledger.nodes.size > 0);
}

async function agentLane(
  t: TestContext,
  place: Place,
  name: string,
  server: Server,
  node: NodeIdentity | undefined,
): Promise<void> {
  const seed = Date.now() >>> 0;
  t.diagnostic(`seed ${seed}`);
  const draw = drawer(seed);
  const dir = place.path(name, 'data');
  const socket = place.path(name, 'p', 'api.sock');
  const config = place.path(name, 'agent.json');
  const pop = node && { x509pop: { privateKeyPath: node.key, certificatePath: node.certificate } };
  writeFileSync(
    config,
    JSON.stringify({
      trustDomain: 'example.org',
      trustBundle: join(server.dir, 'bundle.pem'),
      ...(pop ? { nodeAttestor: pop } : {}),
    }),
  );
  const args = ['agent', 'run', '--config', config, '--data-dir', dir, '--server', `127.0.0.1:${server.port}`];
  args.push('--socket', socket, '--admin-socket', place.path(name, 'a', 'admin.sock'));
  const env = node ? {} : { MUTUAL_JOIN_TOKEN: await joinToken(server, alias) };
  const metadata = { 'workload.spiffe.io': 'true' };

  for (let round = 0; round <= runsOfALane; round++) {
    const program = await place.start(name, process.execPath, [mutualProgram, ...args], { env });
    // A token is spent by the server before the agent can have stored what it got for it: that first time is let through.
    const mayDieEarly = round > 0 || node !== undefined;
    if (round < runsOfALane && mayDieEarly && draw(1) < 0.4) {
      await killAfter(program, draw(900));
      continue;
    }
    const channel = connectUnix(socket);
    try {
      const answer = await until(`${name} serves in run ${round}`, 60_000, async () => {
        assert.equal(program.ending(), undefined, `run ${round}: ${program.output()}`);
        channel.reconnect();
        const options = { deadlineMs: 5000, metadata };
        for await (const first of channel.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, options)) return first;
        return undefined;
      });
      assert.deepEqual(
        answer.svids.map((svid: { spiffe_id: string }) => svid.spiffe_id),
        ['spiffe://example.org/web'],
      );
      checkFiles(dir);
      if (round < runsOfALane) await killAfter(program, draw(400));
    } finally {
      channel.close();
    }
  }
  const type = node ? 'x509pop' : 'join_token';
  const { agents } = await admin(server, 'agent', 'list', '-attestationType', type);
  assert.equal(agents.length, 1, `one agent is listed for ${type}`);
}

describe('killed at random points', { concurrency: 4 }, () => {
  const place = makePlace();
  let server: Server;
  let node: NodeIdentity;
  before(async () => {
    node = await makeNodeIdentity(place.path('node'));
    // Short enough that the agents renew within their runs, long enough that a busy machine does not outlast an SVID.
    server = await startServer('mutual', place, 'server', {
      x509popCa: node.ca,
      agentTtl: 40,
      x509Ttl: 30,
      logLevel: 'WARN',
    });
    await writeBundle(server);
    await createEntry(server, alias, 'spiffe://example.org/spire/server', ['x509pop:subject:cn:node-1']);
    await createEntry(server, 'spiffe://example.org/web', alias, [`unix:uid:${process.getuid!()}`]);
  });
  after(() => place.close());

  for (const name of ['one', 'two'])
    test(`${runsOfALane} runs of server ${name} lose and double nothing`, (t) => serverLane(t, place, name));
  test(`${runsOfALane} runs of an agent attested by a token keep its identity`, (t) =>
    agentLane(t, place, 'token', server, undefined));
  test(`${runsOfALane} runs of an agent attested by x509pop keep its identity`, (t) =>
    agentLane(t, place, 'pop', server, node));
});
