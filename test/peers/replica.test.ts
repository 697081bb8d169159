/** Servers that read a real standby of their database when they start: level, behind, paused for good, wrong and gone. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { adminOf } from '../../bench/agents/fleet.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { type ClusterServer, checksOf, startServer } from './support/cluster.ts';
import { fleetOfOne, holds } from './support/one-agent.ts';
import { makePlace } from './support/place.ts';
import { type Postgres, startPostgres } from './support/postgres.ts';
import { type Standby, startStandby } from './support/standby.ts';
import { until } from './support/until.ts';

const place = makePlace();
let primary: Postgres;
let standby: Standby;

before(async () => {
  primary = await startPostgres(place);
  standby = await startStandby(place, primary);
});
after(() => place.close());

const entryApi = 'spire.api.server.entry.v1.Entry';
const node = 'spiffe://example.org/node';
const nameOf = (url: string): string => /\/(\w+)\?/.exec(url)![1]!;

/** Every entry that a server has in memory, as it tells them. */
async function entriesOf(server: ClusterServer): Promise<Map<string, string>> {
  const admin = connectUnix(server.adminSocket);
  const found = new Map<string, string>();
  try {
    for (let page_token = ''; ; ) {
      const answer = await admin.unary(entryApi, 'ListEntries', { page_size: 1000, page_token });
      for (const entry of answer.entries) found.set(entry.id, JSON.stringify(entry));
      page_token = answer.next_page_token;
      if (page_token === '') return found;
    }
  } finally {
    admin.close();
  }
}
async function createEntries(server: ClusterServer, name: string, count: number): Promise<string[]> {
  const admin = adminOf(server.adminSocket);
  try {
    const ids: string[] = [];
    for (let from = 0; from < count; from += 500)
      ids.push(
        ...(await admin.createEntries(
          node,
          Array.from({ length: Math.min(500, count - from) }, (_, i) => `/${name}/${from + i}`),
        )),
      );
    return ids;
  } finally {
    admin.close();
  }
}
/** Rows of entries and changes that the database has read for anybody. */
async function rowsRead(url: string): Promise<{ entries: number; changes: number }> {
  const { rows } = await primary.query(
    `select relname, (seq_tup_read + coalesce(idx_tup_fetch, 0))::int as n from pg_stat_user_tables
     where relname in ('entries', 'changes')`,
    url,
  );
  const of = (name: string): number => rows.find(({ relname }) => relname === name).n;
  return { entries: of('entries'), changes: of('changes') };
}

test('a start reads entries and nodes from the replica, and from the database only the changes since: also from one far behind', async () => {
  const url = await primary.database();
  const replica = standby.urlOf(nameOf(url));
  const writer = await startServer(place, 'writer', url);
  const fleet = await fleetOfOne(writer);
  const ids = await createEntries(writer, 'many', 3000);
  await standby.level();

  const level = await startServer(place, 'level', url, { databaseReplica: replica });
  assert.match(level.program().output(), /read from the replica.*entries=3001\b/);
  assert.deepEqual(await entriesOf(level), await entriesOf(writer));
  await level.program().stop();

  // Held where it is, while there are new entries, changed ones and some less.
  await standby.pause();
  try {
    await createEntries(writer, 'later', 40);
    const admin = connectUnix(writer.adminSocket);
    await admin.unary(entryApi, 'BatchDeleteEntry', { ids: ids.slice(0, 30) });
    await admin.unary(entryApi, 'BatchUpdateEntry', {
      entries: ids.slice(30, 50).map((id) => ({ id, hint: 'changed' })),
      input_mask: { hint: true },
    });
    admin.close();
    // What the writer's connections have read is counted when they end.
    await writer.program().stop();
    const read = await rowsRead(url);
    const behind = await startServer(place, 'behind', url, { databaseReplica: replica });
    const [, by] = /read from the replica.*behind=(\d+)/.exec(behind.program().output()) ?? [];
    assert.ok(Number(by) >= 90, `behind by ${by}`);
    const told = await entriesOf(behind);
    assert.equal(told.size, 3001 + 40 - 30);
    assert.ok(!told.has(ids[0]!) && /changed/.test(told.get(ids[30]!)!));
    // Live from here on: agents that resume and what is created now.
    await until('the agent is away', 60_000, () => fleet.agents[0]!.status().outage !== undefined);
    const [fresh] = await createEntries(behind, 'fresh', 1);
    await behind.program().stop();
    await until('counted', 60_000, async () => (await rowsRead(url)).changes > read.changes);
    const now = await rowsRead(url);
    assert.ok(now.entries - read.entries < 200, `${now.entries - read.entries} rows of entries were read`);
    await writer.restart();
    await until('the agent is back', 60_000, () => fleet.agents[0]!.status().outage === undefined, 200);
    const again = await entriesOf(writer);
    assert.ok(again.has(fresh!));
    told.delete(fresh!);
    for (const [id, entry] of told) assert.equal(again.get(id), entry);
  } finally {
    await standby.resume();
    await fleet.close();
  }
});

test('an agent resumes at a server that began with a replica behind it: no snapshot, and what it missed is told', async () => {
  const url = await primary.database();
  const server = await startServer(place, 'resumed', url, { databaseReplica: standby.urlOf(nameOf(url)) });
  const fleet = await fleetOfOne(server);
  const agent = fleet.agents[0]!;
  await standby.level();
  await standby.pause();
  try {
    const admin = adminOf(server.adminSocket);
    const [id] = await admin.createEntries(agent.id, ['/while-paused']);
    admin.close();
    await agent.catchUp(60_000);
    await server.program().stop();
    await server.restart();
    assert.match(server.program().output(), /read from the replica.*behind=[1-9]/);
    await until('the agent is back', 60_000, () => agent.status().outage === undefined, 200);
    const next = adminOf(server.adminSocket);
    const [other] = await next.createEntries(agent.id, ['/after']);
    next.close();
    await agent.catchUp(60_000);
    assert.ok(holds(fleet, id!) && holds(fleet, other!));
    assert.equal(agent.applied.filter(({ snapshot }) => snapshot).length, 1);
    assert.deepEqual(fleet.wrong(), []);
  } finally {
    await standby.resume();
    await fleet.close();
  }
});

test('a replica that cannot be used is named in the log, without its password, and the database is read instead', async () => {
  const url = await primary.database();
  const name = nameOf(url);
  const server = await startServer(place, 'careful', url);
  const ids = await createEntries(server, 'kept', 20);
  const foreign = await primary.database();
  const other = await startServer(place, 'foreign', foreign, { trustDomain: 'other.test' });
  await other.program().stop();
  const empty = nameOf(await primary.database());
  await standby.level();

  const startsWith = async (replica: string, sentence: RegExp): Promise<void> => {
    await server.program().stop();
    const again = await startServer(place, 'careful', url, { databaseReplica: replica });
    const output = again.program().output();
    assert.match(output, sentence);
    assert.match(output, /replica not used; the database is read/);
    assert.doesNotMatch(output, /hush/);
    assert.deepEqual([...(await entriesOf(again)).keys()].sort(), [...ids].sort());
    assert.equal((await checksOf(again)).status, 'ok');
    await again.program().stop();
  };
  const withPassword = (of: string): string => of.replace('mutual@', 'mutual:hush-hush@');
  await startsWith(withPassword(url), /takes writes: it is no standby/);
  await startsWith(
    withPassword(standby.urlOf(nameOf(foreign))),
    /repeats another database, of trust domain .*other\.test/,
  );
  await startsWith(withPassword(standby.urlOf(empty)), /has schema 0, the database \d+/);
  await startsWith(withPassword(standby.urlOf('nowhere')), /does not exist/);
  await startsWith('postgres://mutual:hush-hush@/d1?host=/nowhere', /cannot be reached/);

  await standby.pause();
  try {
    await primary.query('insert into schema_version values (1000, 1)', url);
    await startsWith(withPassword(standby.urlOf(name)), /has schema \d+, the database 1000/);
    await primary.query('delete from schema_version where version = 1000', url);
    // As a primary has it that took over from another one, which the replica goes on following.
    const { rows } = await primary.query('select position::int as p from log_head', url);
    await primary.query(`update changes set subject = 'other' where position = ${rows[0].p}`, url);
    await startsWith(withPassword(standby.urlOf(name)), /has another change \d+ than the database/);
  } finally {
    await standby.resume();
  }
});

test('a server whose database is a standby does not start and says where to connect; a replica that is gone keeps nobody from starting', async () => {
  const url = await primary.database();
  const server = await startServer(place, 'to-primary', url);
  const ids = await createEntries(server, 'kept', 5);
  await server.program().stop();
  await standby.level();
  await assert.rejects(startServer(place, 'to-standby', standby.urlOf(nameOf(url))), (error: Error) => {
    assert.match(error.message, /is read-only/);
    assert.match(error.message, /Connect to the primary, not to a standby/);
    return true;
  });
  await standby.stop();
  const again = await startServer(place, 'to-primary', url, { databaseReplica: standby.urlOf(nameOf(url)) });
  assert.match(again.program().output(), /the replica at|cannot be reached/);
  assert.deepEqual([...(await entriesOf(again)).keys()].sort(), [...ids].sort());
});
