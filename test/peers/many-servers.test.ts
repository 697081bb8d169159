import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pg from 'pg';
import type { Applied } from '../../bench/agents/applied.ts';
import { adminOf, type Fleet, startFleet } from '../../bench/agents/fleet.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { sleep } from '../../src/run/clock.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { type CheckedFleet, checkedFleet } from './support/checked-fleet.ts';
import { type Cluster, checksOf } from './support/cluster.ts';
import { mutual } from './support/mutual.ts';
import { makePlace } from './support/place.ts';
import type { Postgres } from './support/postgres.ts';
import { agentPorts, fleetSize, startThreeServers, type ThreeServers } from './support/three-servers.ts';
import { until } from './support/until.ts';

const place = makePlace();
const { clock, random } = agentPorts;
let postgres: Postgres;
let database: string;
let cluster: Cluster;
let fleet: Fleet;
let rig: ThreeServers;
let checked: CheckedFleet;

before(async () => {
  rig = await startThreeServers(place);
  ({ postgres, database, cluster, fleet } = rig);
  checked = checkedFleet(rig);
});
after(async () => {
  await rig?.close();
  await place.close();
});

const nodeApi = 'spire.api.server.agent.v1.Agent';

const has = (applied: readonly Applied[], id: string): boolean =>
  applied.some(({ entries }) => entries.some((entry) => entry.startsWith(`${id} `)));

describe('three servers of one trust domain on one PostgreSQL, 200 agents', () => {
  it('every server has an authority of its own, all are in one bundle, and each one’s SVIDs verify by it', async () => {
    const bundles = await Promise.all(cluster.servers.map((_, server) => rig.bundleOf(server)));
    for (const bundle of bundles) assert.equal(bundle.x509Authorities.length, 3);
    const counts = cluster.balancer.counts();
    assert.ok(
      counts.every((count) => count > fleetSize / 6),
      `agents are on all servers: ${counts}`,
    );
    const issuers = new Set(
      fleet.agents.map(({ node }) =>
        verifyX509Svid(node.chain, bundles[0]!, clock.now()).path.at(-1)!.subject.toString('hex'),
      ),
    );
    assert.equal(issuers.size, 3, 'agents attested at all three');
  });

  it('what is revoked at one server is held by the agents of all, and its command waits for them', async () => {
    const args = ['svid', 'revoke', '--jti', 'stolen', '--timeout', '60s', '--output', 'json'];
    const { code, stdout, stderr } = await mutual([...args, '--admin-socket', cluster.servers[1]!.adminSocket]);
    assert.equal(code, 0, stdout + stderr);
    const { coverage, milliseconds } = JSON.parse(stdout);
    console.log(
      `revoked at one of ${coverage.servers} servers: ${coverage.holding} agents hold it after ${milliseconds} ms`,
    );
    const all = { watching: fleetSize, holding: fleetSize, elsewhere: 0, polling: 0, servers: 3, answered: 3 };
    assert.deepEqual(coverage, { ...all, behind: [] });
  });

  it('an entry made at any server is at agents of all servers within moments', async () => {
    const times: number[] = [];
    for (let i = 0; i < 30; i += 1) {
      const agent = fleet.agents[i * 6]!;
      const admin = adminOf(cluster.servers[i % 3]!.adminSocket);
      const start = performance.now();
      const [id] = await admin.createEntries(agent.id, [`/moment/${i}`]);
      await until('the agent has it', 60_000, () => has(agent.applied.slice(-3), id!), 1);
      times.push(performance.now() - start);
      admin.close();
    }
    times.sort((a, b) => a - b);
    console.log(
      `entry to agent over ${cluster.servers.length} servers: median ${times[15]!.toFixed(1)} ms, most ${times[29]!.toFixed(1)} ms`,
    );
    assert.ok(times[15]! < 1000, 'pushed, not polled');
  });

  it('a join token is redeemed at one server only, and a ban at one server cuts the agent off at the others', async () => {
    const channel = connectUnix(cluster.servers[2]!.adminSocket);
    const other = await startFleet({
      server: { host: '127.0.0.1', port: cluster.servers[1]!.port },
      adminSocket: cluster.servers[2]!.adminSocket,
      agents: 1,
      entriesEach: 0,
      fetchSvids: false,
      ...agentPorts,
    });
    const [agent] = other.agents;
    const ended = agent!.ended.then(
      () => undefined,
      (error: Error) => error,
    );
    const id = agent!.id.slice('spiffe://example.org'.length);
    await channel.unary(nodeApi, 'BanAgent', { id: { trust_domain: 'example.org', path: id } });
    assert.match(String(await ended), /banned/);
    await channel.unary(nodeApi, 'DeleteAgent', { id: { trust_domain: 'example.org', path: id } });
    channel.close();
    await other.close();
  });

  it('a server is killed under load: its agents go on at the others, and it comes back with its authority', async (t) => {
    const work = checked.load(t, [1, 2]);
    await sleep(clock, 1500);
    await cluster.servers[0]!.program().stop('SIGKILL');
    await sleep(clock, 3000);
    await cluster.servers[0]!.restart();
    await until('the others go on', 60_000, () => work.made() > 20);
    await work.stop();
    await checked.settled('after the kill');
    const { rows } = await postgres.query(`select body from bundles where trust_domain = 'example.org'`, database);
    const body = JSON.parse(rows[0].body);
    assert.equal(body.x509Authorities.length, 3, 'a restart makes no new X.509 authority');
    assert.equal(body.jwtAuthorities.length, 3, 'nor a new JWT key');
  });

  it('servers are killed again and again in the middle of writes: what was acknowledged is with every agent', async (t) => {
    for (let round = 0; round < 3; round += 1) {
      const victim = round % 3;
      const works = [checked.load(t, [victim]), checked.load(t, [victim]), checked.load(t, [(victim + 1) % 3])];
      await sleep(clock, 700 + 200 * round);
      await cluster.servers[victim]!.program().stop('SIGKILL');
      await cluster.servers[victim]!.restart();
      for (const work of works) await work.stop();
    }
    await checked.settled('after the kills');
  });

  it('the database is restarted under load: agents notice nothing but a pause', async (t) => {
    const work = checked.load(t, [0, 1, 2]);
    await sleep(clock, 1000);
    const streams = cluster.balancer.made();
    await postgres.stop();
    await until('not ready for want of the database', 60_000, async () =>
      /cannot be reached/.test((await checksOf(cluster.servers[1]!)).checks.store ?? ''),
    );
    await sleep(clock, 1500);
    await postgres.start();
    await until('ready again', 60_000, async () => (await checksOf(cluster.servers[1]!)).status === 'ok');
    await sleep(clock, 1000);
    await work.stop();
    await checked.settled('after the restart of the database');
    assert.equal(cluster.balancer.made(), streams, 'not one connection of an agent was lost');
  });

  it('a server stands still while others write, and is level again when it goes on', async (t) => {
    const { pid } = cluster.servers[1]!.program();
    const work = checked.load(t, [0, 2]);
    await sleep(clock, 500);
    process.kill(pid, 'SIGSTOP');
    await sleep(clock, 6000);
    await until('the others go on', 60_000, () => work.made() > 20);
    process.kill(pid, 'SIGCONT');
    await sleep(clock, 500);
    await work.stop();
    await checked.settled('after the standstill');
  });

  it('a server is cut off from its agents while others write: they go on elsewhere', async (t) => {
    const work = checked.load(t, [0, 1, 2]);
    cluster.balancer.cut(2);
    await sleep(clock, 4000);
    assert.equal(cluster.balancer.counts()[2], 0);
    cluster.balancer.mend(2);
    await work.stop();
    await checked.settled('after the partition');
  });

  it('a change whose commit nobody was told of, as when a server dies right then, is found by the poll', async () => {
    const agent = fleet.agents[0]!;
    // Our own commits carry their notification, so that nothing can come between; this is a writer without one.
    const client = new pg.Client({ connectionString: database });
    await client.connect();
    const id = random.uuid();
    const entry = {
      id,
      spiffeId: 'spiffe://example.org/quiet',
      parentId: agent.id,
      selectors: ['unix:uid:0'],
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
      revision: 0,
      createdAt: 1,
    };
    await client.query('begin');
    const { rows } = await client.query('select position::int from log_head for update');
    const at = rows[0].position + 1;
    await client.query(
      `insert into entries values ($1, $2, $3, $4, 0, '["unix:uid:0"]', 0, 0, '[]', 0, 0, 0, '[]', 0, 0, '', 1, 0, 0)`,
      [at, id, entry.spiffeId, entry.parentId],
    );
    await client.query(`insert into changes values ($1, 'entry', $2, $3, null, null)`, [
      at,
      id,
      JSON.stringify({ ...entry, seq: at }),
    ]);
    await client.query('update log_head set position = $1', [at]);
    const start = performance.now();
    await client.query('commit');
    await client.end();
    await until('the agent has it', 60_000, () => has(agent.applied.slice(-2), id), 20);
    console.log(`a commit without its notification: at the agent after ${Math.round(performance.now() - start)} ms`);
    await checked.settled('after the silent commit');
  });
});
