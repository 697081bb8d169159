/**
 * Databases that are slow, full, read-only, newer or restored, under whole servers with an agent: what is said, what goes
 * on meanwhile, and that nothing has to be started again when it is over.
 */
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, test } from 'node:test';
import type { Fleet } from '../../bench/agents/fleet.ts';
import { type ClusterServer, startServer } from './support/cluster.ts';
import { mutualProgram } from './support/mutual.ts';
import { create, fleetOfOne, holds, ready, storeOf } from './support/one-agent.ts';
import { makePlace } from './support/place.ts';
import { holdTables, type Postgres, startPostgres } from './support/postgres.ts';
import { run } from './support/program.ts';
import { makeSmallDisk, type SmallDisk } from './support/small-disk.ts';
import { until } from './support/until.ts';

const place = makePlace();
const disks: SmallDisk[] = [];
const fleets: Fleet[] = [];
let postgres: Postgres;

before(async () => {
  postgres = await startPostgres(place);
});
after(async () => {
  for (const fleet of fleets) await fleet.close();
  // Their folders go with the place: nothing may be mounted there any more.
  for (const disk of disks) await disk.close();
  await place.close();
});

async function disk(name: string, options: string): Promise<SmallDisk> {
  const made = await makeSmallDisk(place.path(name, 'disk'), options);
  disks.push(made);
  return made;
}

async function oneAgent(server: ClusterServer): Promise<Fleet> {
  const fleet = await fleetOfOne(server);
  fleets.push(fleet);
  return fleet;
}

/** A disk that fills up, and is made larger, under a server. */
async function fillsUp(server: ClusterServer, small: SmallDisk, larger: string): Promise<void> {
  const fleet = await oneAgent(server);
  const agent = fleet.agents[0]!;
  let refusal: Error | undefined;
  let last: string | undefined;
  for (let turn = 0; refusal === undefined && turn < 400; turn += 1) {
    const done = await create(server, agent.id, `full/${turn}`, 50);
    if (done instanceof Error) refusal = done;
    else last = done.at(-1);
  }
  assert.match(refusal?.message ?? '', /cannot grow: (its|the) disk is full/);
  let tries = 0;
  // A small write may have found room since, and then the store is well again: until nothing has.
  await until('ready says that the disk is full', 60_000, async () => {
    if (/disk is full/.test(await storeOf(server))) return true;
    const done = await create(server, agent.id, `more/${tries++}`);
    if (!(done instanceof Error)) last = done.at(-1);
    return false;
  });
  // What was acknowledged is with the agent, and what needs no room goes on.
  await agent.catchUp(60_000);
  assert.ok(holds(fleet, last!));
  await until('an SVID for each entry', 60_000, () => agent.svids === agent.entries);
  await small.remount(larger);
  const [id] = (await create(server, agent.id, 'room')) as string[];
  await ready(server);
  await agent.catchUp(60_000);
  assert.ok(holds(fleet, id!));
  assert.deepEqual(fleet.wrong(), []);
  assert.equal(agent.status().outage, undefined);
}

test('SQLite on a disk that is full: refused in a sentence, not ready and why, agents go on; with room it writes again', async () => {
  const small = await disk('sqlite-full', 'size=1536k');
  const server = await startServer(place, 'sqlite-full-server', `sqlite:${join(small.path, 'server.db')}`);
  await fillsUp(server, small, 'size=64m');
});

test('SQLite on a disk that became read-only: the server does not start and says so; with the disk well it has everything', async () => {
  const small = await disk('sqlite-ro', 'size=32m');
  const server = await startServer(place, 'sqlite-ro-server', `sqlite:${join(small.path, 'server.db')}`);
  const fleet = await oneAgent(server);
  const { id } = fleet.agents[0]!;
  const [entry] = (await create(server, id, 'kept')) as string[];
  await server.program().stop();
  await small.remount('ro');
  await assert.rejects(server.restart(), (error: Error) => /read-only/.test(error.message));
  await small.remount('rw');
  await server.restart();
  await until('the agent is back', 60_000, () => fleet.agents[0]!.status().outage === undefined, 200);
  assert.ok(holds(fleet, entry!));
  assert.equal(fleet.agents[0]!.attestations, 1);
});

test('PostgreSQL whose disk is full: refused in a sentence, not ready and why, agents go on; with room it writes again', async () => {
  const small = await disk('postgres-full', `size=12m,uid=${process.getuid?.() === 0 ? 65534 : 0},mode=700`);
  await postgres.query(`create tablespace small location '${small.path}'`);
  const url = await postgres.database();
  const name = /\/(\w+)\?/.exec(url)![1];
  await postgres.query(`alter database ${name} set tablespace small`);
  const server = await startServer(place, 'postgres-full-server', url);
  await fillsUp(server, small, 'size=64m');
});

test('PostgreSQL that answers nothing for a while: not ready and why, the write waits and is done, its agent stays', async () => {
  const url = await postgres.database();
  const server = await startServer(place, 'slow-server', url);
  const fleet = await oneAgent(server);
  const agent = fleet.agents[0]!;
  const letGo = await holdTables(url, 'log_head, entries, changes, nodes');
  const write = create(server, agent.id, 'patient');
  await until('not ready', 60_000, async () => !/^ok$/.test(await storeOf(server)), 100);
  assert.match(await storeOf(server), /no answer in 3 s|did not finish in time/);
  assert.equal(agent.status().outage, undefined);
  await letGo();
  const [id] = (await write) as string[];
  await ready(server);
  await agent.catchUp(60_000);
  assert.ok(holds(fleet, id!));
  assert.equal(agent.applied.filter(({ snapshot }) => snapshot).length, 1);
});

test('a database of a newer schema: neither engine lets a server start, and the sentence names both versions', async () => {
  const file = place.path('newer', 'server.db');
  const url = await postgres.database();
  for (const [name, database] of [
    ['newer-sqlite', `sqlite:${file}`],
    ['newer-postgres', url],
  ] as const) {
    const server = await startServer(place, name, database);
    await server.program().stop();
    const newer = 'insert into schema_version values (1000, 999)';
    if (database === url) await postgres.query(newer, url);
    else {
      const db = new DatabaseSync(file);
      db.exec(newer);
      db.close();
    }
    await assert.rejects(server.restart(), (error: Error) => {
      assert.match(error.message, /schema 1000, this program knows \d+/);
      return true;
    });
  }
});

test('a database restored from a backup, with a new log identity: agents take everything anew, and hold what is there', async () => {
  const file = place.path('restored', 'server.db');
  const server = await startServer(place, 'restored-server', `sqlite:${file}`);
  const fleet = await oneAgent(server);
  const agent = fleet.agents[0]!;
  const [kept] = (await create(server, agent.id, 'kept')) as string[];
  await agent.catchUp(60_000);
  await server.program().stop();
  copyFileSync(file, `${file}.backup`);
  await server.restart();
  await until('the agent is back', 60_000, () => agent.status().outage === undefined, 200);
  const lost = (await create(server, agent.id, 'lost', 5)) as string[];
  await agent.catchUp(60_000);
  assert.ok(lost.every((id) => holds(fleet, id)));
  await server.program().stop();
  copyFileSync(`${file}.backup`, file);

  const config = place.path('restored-server', 'server.json');
  const migrate = (...more: string[]) =>
    run(process.execPath, [mutualProgram, 'server', 'migrate', '--config', config, '--output', 'json', ...more]);
  const before = JSON.parse((await migrate()).stdout);
  const renewed = JSON.parse((await migrate('--new-log-id')).stdout);
  assert.notEqual(renewed.logId, before.logId);
  assert.equal(renewed.position, before.position);

  await server.restart();
  // As many changes as were lost: the agent's old position stands for one of these now.
  const other = (await create(server, agent.id, 'other', 5)) as string[];
  await until('the agent holds what is there', 60_000, () => other.every((id) => holds(fleet, id)), 100);
  assert.ok(holds(fleet, kept!));
  assert.ok(!lost.some((id) => holds(fleet, id)), 'what the restored database never had is gone');
  assert.equal(agent.applied.filter(({ snapshot }) => snapshot).at(-1)!.logId, renewed.logId);
  assert.equal(agent.attestations, 1);
  assert.deepEqual(fleet.wrong(), []);
});
