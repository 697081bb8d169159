/**
 * A rolling upgrade, seen by the servers that are not upgraded yet: the next version has taken the database to its schema,
 * which only grew, and writes what this version does not know. The next version is played by statements, since it is not
 * written yet; what it does is what migrations may do (server/store/migrations/migrate.ts).
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { adminOf, type Fleet } from '../../bench/agents/fleet.ts';
import { migrations } from '../../server/store/migrations/migrate.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { type ClusterServer, checksOf, startServer } from './support/cluster.ts';
import { fleetOfOne, holds } from './support/one-agent.ts';
import { makePlace } from './support/place.ts';
import { type Postgres, startPostgres } from './support/postgres.ts';
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

const ours = migrations.at(-1)!.version;
const entryApi = 'spire.api.server.entry.v1.Entry';

/** What the next version does when it starts first: it grows tables, adds one, and says who may stay. */
async function migrateToNext(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(`begin;
      select pg_advisory_xact_lock(${0x6d757475616c});
      alter table entries add column colour text not null default 'none';
      alter table nodes add column last_words text;
      alter table changes add column written_by text;
      create table novelties (name text primary key not null, body text not null);
      create index novelties_body on novelties (body);
      insert into schema_version (version, compatible) values (${ours + 1}, ${ours});
      commit`);
  } finally {
    await client.end();
  }
}
/** A change of a kind, and an entry with a field, that only the next version knows, as a server of it commits them. */
async function writeAsNext(url: string, parent: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('begin');
    const { rows } = await client.query('select position::int as p from log_head where one = 1 for update');
    const { p } = rows[0];
    await client.query(
      `insert into changes (position, kind, subject, value, written_by) values ($1, 'novelty', 'bell', '{"rings":true}', 'next')`,
      [p + 1],
    );
    const { rows: some } = await client.query(
      `select value from changes where kind = 'entry' and subject = (select id from entries where parent_id = $1 order by seq limit 1)
       order by position desc limit 1`,
      [parent],
    );
    const before = JSON.parse(some[0].value);
    const value = { ...before, revision: before.revision + 1, hint: 'by the next version', colour: 'red' };
    await client.query(
      `insert into changes (position, kind, subject, value, before_spiffe_id, before_parent_id)
       select $1, 'entry', id, $2, spiffe_id, parent_id from entries where id = $3`,
      [p + 2, JSON.stringify(value), value.id],
    );
    await client.query(
      `update entries set hint = 'by the next version', colour = 'red', revision = revision + 1 where id = $1`,
      [value.id],
    );
    await client.query('update log_head set position = $1', [p + 2]);
    await client.query('notify mutual_log; commit');
  } finally {
    await client.end();
  }
}

test('two servers of this version go on while the next one migrates their database and writes to it, and one starts there', async () => {
  const url = await postgres.database();
  const [one, two] = [await startServer(place, 'one', url), await startServer(place, 'two', url)];
  const fleet = await fleetOfOne(two);
  fleets.push(fleet);
  const agent = fleet.agents[0]!;
  const admin = adminOf(one.adminSocket);

  // Written all the time, by the server to which the agent is not connected.
  const made: string[] = [];
  let stopped = false;
  const writing = (async () => {
    for (let n = 0; !stopped; n += 1) made.push(...(await admin.createEntries(agent.id, [`/during/${n}`])));
  })();
  await until('some are written', 60_000, () => made.length >= 20);
  await migrateToNext(url);
  await until('some more are written', 60_000, () => made.length >= 60);
  stopped = true;
  await writing;
  admin.close();
  await writeAsNext(url, agent.id);

  const list = async (server: ClusterServer): Promise<{ id: string; hint: string }[]> => {
    const channel = connectUnix(server.adminSocket);
    return channel
      .unary(entryApi, 'ListEntries', {})
      .then((answer) => answer.entries)
      .finally(() => channel.close());
  };
  const changed = await until('both know what the next version wrote', 60_000, async () => {
    const [first, second] = [await list(one), await list(two)];
    const by = (entries: typeof first) => entries.find(({ hint }) => hint === 'by the next version');
    assert.deepEqual(first, second);
    return by(first);
  });
  await agent.catchUp(60_000);
  for (const id of [...made, changed.id]) assert.ok(holds(fleet, id));
  for (const server of [one, two]) assert.equal((await checksOf(server)).status, 'ok');

  // What was made before can be changed and deleted, by this version too, and nodes can be attested.
  const channel = connectUnix(one.adminSocket);
  const updated = await channel.unary(entryApi, 'BatchUpdateEntry', {
    entries: [{ id: changed.id, hint: 'by this version' }],
    input_mask: { hint: true },
  });
  assert.equal(updated.results[0].status.code, 0);
  const deleted = await channel.unary(entryApi, 'BatchDeleteEntry', { ids: [made[0]] });
  assert.equal(deleted.results[0].status.code, 0);
  channel.close();
  fleets.push(await fleetOfOne(one));
  await agent.catchUp(60_000);
  assert.ok(!holds(fleet, made[0]!));
  const { rows } = await postgres.query(`select colour from entries where id = '${changed.id}'`, url);
  assert.equal(rows[0].colour, 'red', 'what this version does not know is left as it was');

  // One that comes back finds the newer schema, and works with it.
  await two.program().stop();
  await two.restart();
  await until('the agent is back', 60_000, () => agent.status().outage === undefined, 200);
  assert.deepEqual(await list(two), await list(one));
  assert.deepEqual(fleet.wrong(), []);
  assert.equal(agent.attestations, 1);
  const third = await startServer(place, 'three', url, { migrateAtStart: false });
  assert.deepEqual(await list(third), await list(one));
});

test('a next version that shrinks the schema says so, and no server of this one starts there', async () => {
  const url = await postgres.database();
  const server = await startServer(place, 'old', url);
  await postgres.query(`insert into schema_version (version, compatible) values (${ours + 1}, ${ours + 1})`, url);
  await server.program().stop();
  await assert.rejects(server.restart(), (error: Error) => {
    assert.match(error.message, new RegExp(`has schema ${ours + 1}, this program knows ${ours} at most`));
    assert.match(error.message, new RegExp(`needs schema ${ours + 1} or newer`));
    return true;
  });
});
