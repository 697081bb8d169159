/**
 * Databases that take no writes for a while, under whole servers with an agent: made read-only, held by somebody, or
 * slower than what is asked of them. The agent goes on, the operator is told why, nothing piles up, and it passes.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Fleet } from '../../bench/agents/fleet.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { type ClusterServer, checksOf, startServer } from './support/cluster.ts';
import { mutualProgram } from './support/mutual.ts';
import { create, fleetOfOne, holds, ready, storeOf } from './support/one-agent.ts';
import { makePlace, type Place } from './support/place.ts';
import { holdTables, type Postgres, startPostgres } from './support/postgres.ts';
import { type Finished, type Program, run } from './support/program.ts';
import { until } from './support/until.ts';

const place = makePlace();
const fleets: Fleet[] = [];
let postgres: Postgres;

before(async () => {
  postgres = await startPostgres(place);
});
after(async () => {
  for (const fleet of fleets) await fleet.close();
  await place.close();
});

async function oneAgent(server: ClusterServer): Promise<Fleet> {
  const fleet = await fleetOfOne(server);
  fleets.push(fleet);
  return fleet;
}
function mutual(server: ClusterServer, ...args: string[]): Promise<Finished> {
  return run(process.execPath, [mutualProgram, ...args], { env: { MUTUAL_ADMIN_SOCKET: server.adminSocket } });
}
const createByCommand = (server: ClusterServer, parent: string, path: string): Promise<Finished> =>
  mutual(
    server,
    ...['entry', 'create', '--spiffe-id', `spiffe://example.org${path}`, '--parent-id', parent],
    ...['--selector', 'unix:uid:1000'],
  );
async function mint(server: ClusterServer): Promise<void> {
  const minted = await mutual(server, 'jwt', 'mint', '--spiffe-id', 'spiffe://example.org/m', '--audience', 'a');
  assert.equal(minted.code, 0, minted.stderr);
}

/** The agent went through it without a second attestation, snapshot or outage, and is told of what is new. */
async function unharmed(server: ClusterServer, fleet: Fleet): Promise<void> {
  const agent = fleet.agents[0]!;
  const [id] = (await create(server, agent.id, 'after')) as string[];
  await agent.catchUp(60_000);
  assert.ok(holds(fleet, id!));
  assert.equal(agent.status().outage, undefined);
  assert.equal(agent.attestations, 1);
  assert.equal(agent.applied.filter(({ snapshot }) => snapshot).length, 1);
  assert.deepEqual(fleet.wrong(), []);
}

test('PostgreSQL that becomes read-only: refused with what to do, not ready and why, reads and SVIDs go on, and it passes', async () => {
  const server = await startServer(place, 'read-only-server', await postgres.database());
  const fleet = await oneAgent(server);
  const agent = fleet.agents[0]!;
  await postgres.query('alter system set default_transaction_read_only = on');
  await postgres.query('select pg_reload_conf()');
  try {
    await until('not ready', 60_000, async () => (await storeOf(server)) !== 'ok');
    assert.match(await storeOf(server), /is read-only/);
    assert.equal((await checksOf(server, '/live')).status, 'ok');
    const refused = await createByCommand(server, agent.id, '/refused');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /the database at \S+ is read-only/);
    assert.match(refused.stderr, /Connect to the primary, not to a standby/);
    const listed = await mutual(server, 'entry', 'list', '--output', 'json');
    assert.equal(listed.code, 0);
    assert.doesNotMatch(listed.stdout, /\/refused/);
    await mint(server);
    assert.equal(agent.status().outage, undefined);
  } finally {
    await postgres.query('alter system reset default_transaction_read_only');
    await postgres.query('select pg_reload_conf()');
  }
  await ready(server);
  await unharmed(server, fleet);
});

test('PostgreSQL with a table held: whoever waits is told together when one waited in vain, and nothing of it is stored', async () => {
  const url = await postgres.database();
  const server = await startServer(place, 'held-server', url);
  const fleet = await oneAgent(server);
  const agent = fleet.agents[0]!;
  const letGo = await holdTables(url, 'entries');
  const first = createByCommand(server, agent.id, '/first');
  const heldUp = async () =>
    (
      await postgres.query(
        `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
        url,
      )
    ).rows as { pid: number }[];
  const [waiting] = await until('a write waits', 60_000, async () => {
    const found = await heldUp();
    return found.length > 0 && found;
  });
  const behind = Array.from({ length: 20 }, (_, i) => create(server, agent.id, `behind/${i}`));
  // Asked after them, on a connection of its own, and answered: they are all with the server.
  await mint(server);
  assert.equal((await heldUp()).length, 1, 'one transaction waits, however many writes do');
  // As the limit of 30 s does it.
  await postgres.query(`select pg_cancel_backend(${waiting!.pid})`);
  const refused = await first;
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /the database at \S+ did not finish in time/);
  const outcomes = await Promise.all(behind);
  for (const one of outcomes) assert.match((one as Error).message, /did not finish in time/);
  assert.equal(agent.status().outage, undefined);
  await letGo();
  await ready(server);
  const { rows } = await postgres.query(
    `select count(*)::int as n from entries where spiffe_id like '%/first' or spiffe_id like '%/behind/%'`,
    url,
  );
  assert.equal(rows[0].n, 0);
  await unharmed(server, fleet);
});

test('PostgreSQL slower than what is asked of it: beyond what may wait all is refused at once, with when to come again', async () => {
  const url = await postgres.database();
  const server = await startServer(place, 'flooded-server', url);
  const fleet = await oneAgent(server);
  const letGo = await holdTables(url, 'log_head');
  const admin = connectUnix(server.adminSocket);
  const ids = Array.from({ length: 1000 }, (_, i) => `none-${i}`);
  let refused = 0;
  const calls = Array.from({ length: 60 }, () =>
    admin.unary('spire.api.server.entry.v1.Entry', 'BatchDeleteEntry', { ids }).then(
      () => 'done',
      (error: Error) => {
        refused += 1;
        return error.message;
      },
    ),
  );
  // Those that are refused are so while the others wait.
  await until('what is too much is refused', 60_000, () => refused >= 40);
  await until('not ready', 60_000, async () => /no answer in 3 s/.test(await storeOf(server)), 100);
  assert.equal(fleet.agents[0]!.status().outage, undefined);
  await letGo();
  const outcomes = await Promise.all(calls);
  admin.close();
  const told = outcomes.filter((outcome) => outcome !== 'done');
  // The server's own questions wait too.
  assert.ok(told.length >= 40 && told.length <= 45, `${told.length} refused`);
  for (const text of told)
    assert.match(text, /the database is too slow: (19|20)\d{3} questions wait for it\. Try again later/);
  await ready(server);
  await unharmed(server, fleet);
});

/** Another program that takes the write lock of a SQLite file, says so, and lets go when its input ends. */
const holder = `
const { DatabaseSync } = require('node:sqlite');
const db = new DatabaseSync(process.argv[1], { timeout: 0 });
try {
  db.exec('begin immediate');
  console.log('held');
} catch (error) {
  console.log(error.message);
}
process.on('SIGTERM', () => { db.close(); process.exit(0); });
setInterval(() => {}, 1000);`;

test('SQLite held by another process: a start says so and waits, or is refused; a server that runs cannot be disturbed', async () => {
  const file = place.path('held-sqlite', 'server.db');
  const started: Program[] = [];
  const noted: Place = {
    ...place,
    async start(...how) {
      const program = await place.start(...how);
      started.push(program);
      return program;
    },
  };
  const server = await startServer(noted, 'held-sqlite-server', `sqlite:${file}`);
  const fleet = await oneAgent(server);
  const hold = () => place.start('holder', process.execPath, ['-e', holder, file]);

  const outsider = await hold();
  await outsider.line(/database is locked/);
  await outsider.stop();
  await unharmed(server, fleet);

  await server.program().stop();
  const first = await hold();
  await first.line(/^held$/m);
  await assert.rejects(server.restart(), (error: Error) => {
    assert.match(error.message, /another process has the database; waiting 5 s/);
    assert.match(error.message, /server\.db" is in use by another process/);
    assert.match(error.message, /Stop the other server/);
    return true;
  });
  const restarting = server.restart();
  await until('it is started', 60_000, () => started.length === 3);
  await started[2]!.line(/waiting 5 s/);
  await first.stop();
  await restarting;
  await until('the agent is back', 60_000, () => fleet.agents[0]!.status().outage === undefined, 200);
  const [id] = (await create(server, fleet.agents[0]!.id, 'again')) as string[];
  await fleet.agents[0]!.catchUp(60_000);
  assert.ok(holds(fleet, id!));
});
