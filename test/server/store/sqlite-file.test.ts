import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { it, type TestContext } from 'node:test';
import { createEntries } from '../../../server/store/entries.ts';
import { migrate, migrations } from '../../../server/store/migrations/migrate.ts';
import { openStore } from '../../../server/store/open.ts';
import { openSqlite } from '../../../server/store/sqlite-session.ts';
import { commitTogether, type Write } from '../../../server/store/transaction.ts';
import { create, draft } from '../../suites/store.ts';

function pathFor(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'mutual-store-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return join(dir, 'data', 'server.db');
}

const fault = (code: string, message: RegExp) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, code, String(error));
  assert.match((error as Error).message, message);
  return true;
};

async function filled(path: string, entries = 400): Promise<void> {
  const store = await openStore({ url: `sqlite:${path}` });
  for (let i = 0; i < entries; i += 100) {
    await store.entries.create(
      Array.from({ length: 100 }, (_, j) => ({ draft: draft(`/w/${i + j}`), stamp: { id: `e${i + j}`, now: 1 } })),
    );
  }
  await store.close();
}

it('SPI-01-002 a new database is readable by its owner alone, whatever the umask', async (t) => {
  const path = pathFor(t);
  const before = process.umask(0);
  const store = await openStore({ url: `sqlite:${path}` });
  await create(store, draft('/a'));
  process.umask(before);
  const dir = join(path, '..');
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  for (const name of readdirSync(dir)) assert.equal(statSync(join(dir, name)).mode & 0o777, 0o600, name);
  await store.close();
});

it('a database of a newer schema is refused, naming both versions', async (t) => {
  const path = pathFor(t);
  await filled(path, 100);
  const db = new DatabaseSync(path);
  db.exec('insert into schema_version values (7, 6)');
  db.close();
  await assert.rejects(
    openStore({ url: `sqlite:${path}` }),
    fault('data/foreign', new RegExp(`schema 7, this program knows ${migrations.length}\\b`)),
  );
});

it('a database that a newer schema only expanded still opens', async (t) => {
  const path = pathFor(t);
  await filled(path, 100);
  const db = new DatabaseSync(path);
  db.exec(`insert into schema_version values (${migrations.length + 1}, 1)`);
  db.close();
  const store = await openStore({ url: `sqlite:${path}` });
  assert.equal(await store.log.position(), 100);
  await store.close();
});

it('another program’s database is refused and left as it was', async (t) => {
  const path = pathFor(t);
  mkdirSync(join(path, '..'), { recursive: true });
  const db = new DatabaseSync(path);
  db.exec('create table theirs (a)');
  db.close();
  await assert.rejects(openStore({ url: `sqlite:${path}` }), fault('data/foreign', /another program/));
  const again = new DatabaseSync(path);
  assert.deepEqual(
    again
      .prepare('select name from sqlite_schema')
      .all()
      .map((row) => row.name),
    ['theirs'],
  );
  again.close();
});

it('a file that is no database is refused as damaged', async (t) => {
  const path = pathFor(t);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, 'this is a text file, long enough to be read as a header of a database file'.repeat(100));
  await assert.rejects(
    openStore({ url: `sqlite:${path}` }),
    fault('data/corrupt', /server\.db.* is damaged or is not/),
  );
});

it('a database overwritten in the middle, or cut short, is refused at open', async (t) => {
  const path = pathFor(t);
  await filled(path);
  const whole = readFileSync(path);
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(8192, 0xa5), 0, 8192, Math.floor(whole.length / 8192) * 4096);
  await assert.rejects(openStore({ url: `sqlite:${path}` }), fault('data/corrupt', /is damaged/));
  writeFileSync(path, whole);
  truncateSync(path, Math.floor(whole.length / 8192) * 4096);
  await assert.rejects(openStore({ url: `sqlite:${path}` }), fault('data/corrupt', /is damaged/));
});

it('a log whose end was cut off by hand is refused at open', async (t) => {
  const path = pathFor(t);
  await filled(path, 100);
  const db = new DatabaseSync(path);
  db.exec('delete from changes where position > 97');
  db.close();
  await assert.rejects(openStore({ url: `sqlite:${path}` }), fault('data/corrupt', /changes 1 to 97 .* 1 to 100/));
});

it('a database in use by another process is refused, and opens when that has gone', async (t) => {
  const path = pathFor(t);
  const holder = spawn(process.execPath, [join(import.meta.dirname, 'write-forever.ts'), path, 'h'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = once(holder, 'exit');
  t.after(() => holder.kill('SIGKILL'));
  const { promise: writing, resolve } = Promise.withResolvers<void>();
  holder.stdout.on('data', (chunk) => String(chunk).includes('created') && resolve());
  await writing;
  await assert.rejects(
    openStore({ url: `sqlite:${path}`, waitMs: 1 }),
    fault('peer/unavailable', /in use by another process/),
  );
  // Told at once: the holder goes because of it, long before a wait that nobody would sit through.
  let told = 0;
  const late = openStore({
    url: `sqlite:${path}`,
    waitMs: 60_000,
    onWaiting() {
      told += 1;
      holder.kill('SIGKILL');
    },
  });
  await (await late).close();
  await gone;
  assert.equal(told, 1);
  await (await openStore({ url: `sqlite:${path}`, onWaiting: () => assert.fail('nobody has it') })).close();
});

it('a path that cannot be opened is said to be so', async (t) => {
  const path = pathFor(t);
  mkdirSync(path, { recursive: true });
  await assert.rejects(openStore({ url: `sqlite:${path}` }), fault('system/failed', /server\.db.* cannot be opened/));
  await assert.rejects(openStore({ url: 'sqlite:/dev/null/x.db' }), fault('system/failed', /cannot be opened/));
});

it('a URL of no known kind is refused without its password', async () => {
  await assert.rejects(openStore({ url: 'mysql://me:secret@host/db' }), (error: Error) => {
    assert.match(error.message, /mysql:\/\/me:\.\.\.@host/);
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
  await assert.rejects(openStore({ url: 'sqlite:' }), fault('config/invalid', /"sqlite:"/));
});

const one =
  (i: number): Write =>
  (tx) =>
    createEntries(tx, [{ draft: draft(`/w/${i}`), stamp: { id: `e${i}`, now: 1 } }]);

async function session(t: TestContext, path = ':memory:') {
  const { session, close } = openSqlite(path, 1);
  t.after(close);
  await session.run('begin');
  await migrate(session, 'log');
  await session.run('commit');
  return session;
}

for (const [what, limit, free, message] of [
  ['a full disk', 'pragma max_page_count = 30', 'pragma max_page_count = 10000', /cannot grow: the disk is full/],
  ['a read-only disk', 'pragma query_only = on', 'pragma query_only = off', /cannot be written: it is read-only/],
] as const) {
  it(`${what} fails the whole group in a sentence and keeps nothing of it; then writing goes on`, async (t) => {
    const db = await session(t, pathFor(t));
    await commitTogether(db, [one(0)], 'begin immediate');
    await db.run(limit);
    const writes = Array.from({ length: 200 }, (_, i) => one(i + 1));
    const { outcomes, changes } = await commitTogether(db, writes, 'begin immediate');
    const failed = outcomes.filter((outcome) => 'fault' in outcome);
    assert.ok(failed.length > 0);
    for (const outcome of failed) {
      assert.equal(outcome.fault.code, 'system/failed');
      assert.match(outcome.fault.message, message);
    }
    await db.run(free);
    const next = await commitTogether(db, [one(1000)], 'begin immediate');
    assert.equal(next.changes[0]?.change.position, 1 + changes.length + 1);
    assert.equal(outcomes.length - failed.length, changes.length);
  });
}

it('an in-memory store leaves no file', async () => {
  const store = await openStore({ url: 'sqlite::memory:' });
  await create(store, draft('/a'));
  await store.close();
  assert.equal(existsSync(':memory:'), false);
});

it('recent changes are read from memory: the database need not even be open', async () => {
  const store = await openStore({ url: 'sqlite::memory:' });
  for (let i = 0; i < 5; i += 1) await create(store, draft(`/w/${i}`));
  await store.close();
  assert.deepEqual(
    (await store.log.read(2, 2)).map((change) => change.position),
    [3, 4],
  );
  assert.equal(await store.log.position(), 5);
});

it('what cannot cross to the thread is refused, and the store goes on', async () => {
  const store = await openStore({ url: 'sqlite::memory:' });
  await assert.rejects(store.entries.get((() => {}) as never), fault('system/failed', /internal error/));
  await create(store, draft('/a'));
  await store.close();
});

it('a database that shrinks gives back the pages that it kept, and reads them again; a closed one has none', (t) => {
  const url = (name: string): string => new URL(`../../../${name}`, import.meta.url).href;
  const source = `
    import { readFileSync } from 'node:fs';
    const load = (name) => import(name);
    const { openSqlite } = await load('${url('server/store/sqlite-session.ts')}');
    const { lettingGo } = await load('${url('src/run/resident.ts')}');
    const { session, shrink, close } = openSqlite(process.argv[1], 1);
    const numbers = 'with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)';
    await session.run('create table kept as ' + numbers + ' select i, randomblob(4000) as bytes from n');
    const letGo = lettingGo();
    const own = async () => {
      await letGo();
      return Number(/^RssAnon:\\s+(\\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))[1]);
    };
    const before = await own();
    shrink();
    const after = await own();
    await session.run('update kept set i = i + 1 where length(bytes) = 4000');
    close();
    shrink();
    console.log(JSON.stringify({ before, after }));
  `;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', source, pathFor(t)], {
    encoding: 'utf8',
  });
  const { before, after } = JSON.parse(printed);
  assert.ok(after < before - 8_000, printed);
});
