import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import pg from 'pg';
import { migrations } from '../../server/store/migrations/migrate.ts';
import { openStore } from '../../server/store/open.ts';
import { connections } from '../../server/store/postgres-session.ts';
import type { Store } from '../../server/store/store.ts';
import { systemClock as clock, sleep } from '../../src/run/clock.ts';
import { assertLogIsWhole, bundle, create, draft, id, node, storeSuite, wholeLog } from '../suites/store.ts';
import { drivenClock } from '../support/clock.ts';
import { writeRounds } from './support/log-writers.ts';
import { makePlace } from './support/place.ts';
import { type Postgres, startPostgres } from './support/postgres.ts';
import { until } from './support/until.ts';

const place = makePlace();
let server: Postgres;
before(async () => {
  server = await startPostgres(place);
});
after(() => place.close());

storeSuite('PostgreSQL', {
  durable: true,
  async fresh() {
    const url = await server.database();
    return () => openStore({ url });
  },
});

const fault = (code: string, message: RegExp) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, code, String(error));
  assert.match((error as Error).message, message);
  return true;
};

async function opened(t: TestContext, url: string): Promise<Store> {
  const store = await openStore({ url });
  t.after(() => store.close());
  return store;
}

describe('several servers on one PostgreSQL', () => {
  it('servers that start together on an empty database make one schema and one log', async (t) => {
    const url = await server.database();
    const stores = await Promise.all(Array.from({ length: 4 }, () => opened(t, url)));
    assert.equal(new Set(stores.map((store) => store.log.id)).size, 1);
    await Promise.all(stores.map((store, i) => create(store, draft(`/w/${i}`))));
    for (const store of stores) await assertLogIsWhole(store);
  });

  it('SPIRE 1.14.6 join token: of 200 attestations with one token over four servers exactly one wins', async (t) => {
    const url = await server.database();
    const stores = await Promise.all(Array.from({ length: 4 }, () => opened(t, url)));
    await stores[0]!.tokens.create({ value: 'tok', expiresAt: 10 });
    const outcomes = await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        stores[i % 4]!.nodes.attest(node(`/spire/agent/join_token/${i}`), { value: 'tok', now: 1 }),
      ),
    );
    assert.equal(outcomes.filter((outcome) => outcome === 'attested').length, 1);
    assert.equal((await stores[1]!.nodes.scan(0, 1000)).length, 1);
  });

  it('similar entries, taken ids and compare-and-swap hold across servers', async (t) => {
    const url = await server.database();
    const stores = await Promise.all(Array.from({ length: 4 }, () => opened(t, url)));
    const similar = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        stores[i % 4]!.entries.create([{ draft: draft('/one'), stamp: { id: `s${i}`, now: 1 } }]),
      ),
    );
    assert.equal(similar.flat().filter((one) => 'created' in one).length, 1);
    assert.equal(similar.flat().filter((one) => 'similar' in one).length, 39);
    const taken = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        stores[i % 4]!.entries.create([{ draft: draft(`/w/${i}`, { id: 'same' }), stamp: { id: '', now: 1 } }]),
      ),
    );
    assert.equal(taken.flat().filter((one) => 'created' in one).length, 1);
    await stores[0]!.bundles.put(bundle('peer.test', { sequence: 1n }), 'any');
    const swaps = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        stores[i % 4]!.bundles.put(bundle('peer.test', { sequence: 2n, refreshHint: i }), 1n),
      ),
    );
    assert.equal(swaps.filter(Boolean).length, 1);
    await assertLogIsWhole(stores[3]!);
  });

  it('what one server commits, another is told of', async (t) => {
    const url = await server.database();
    const [one, two] = [await opened(t, url), await opened(t, url)];
    // Until it listens, only the slow poll would tell; a listener is seen in the database's own list.
    await until('both listen', 60_000, async () => {
      const { rows } = await server.query(
        `select count(*)::int as n from pg_stat_activity where datname = current_database() and query like 'listen%'`,
        url,
      );
      return rows[0].n === 2;
    });
    const told = new Promise<number>((resolve) => two.log.onAppend(resolve));
    await create(one, draft('/web'));
    assert.equal(await told, 1);
    assert.deepEqual(await two.log.read(0, 10), await one.log.read(0, 10));
  });

  it('a position given by one server is readable on every other at once', async (t) => {
    const url = await server.database();
    const [one, two] = [await opened(t, url), await opened(t, url)];
    for (let i = 1; i <= 50; i += 1) {
      await create(one, draft(`/w/${i}`));
      assert.equal(await two.log.position(), i);
      assert.equal((await two.log.read(i - 1, 10))[0]?.position, i);
    }
  });
});

/** Resolves at the next append, or with `otherwise`. */
async function told(store: Store, otherwise: Promise<void>): Promise<void> {
  const appended = Promise.withResolvers<number>();
  const stop = store.log.onAppend(appended.resolve);
  await Promise.race([appended.promise, otherwise]);
  stop();
}

describe('the log of PostgreSQL under attack', () => {
  it('writers commit out of order while readers follow, 10,000 rounds: no reader ever passes a position', async (t) => {
    const rounds = Number(process.env.MUTUAL_LOG_ROUNDS ?? 10_000);
    const url = await server.database();
    const stores = await Promise.all(Array.from({ length: 3 }, () => opened(t, url)));
    let done = false;
    const finished = Promise.withResolvers<void>();
    const followers = stores.map(async (store, i) => {
      const seen: number[] = [];
      const readOn = async (): Promise<void> => {
        const page = await store.log.read(seen.at(-1) ?? 0, 100);
        for (const change of page) seen.push(change.position);
      };
      // One reads all the time, the others when they are told.
      while (!done) {
        if (i > 0) await told(store, finished.promise);
        else await sleep(clock, 1);
        await readOn();
      }
      for (let before = -1; before !== seen.length; ) {
        before = seen.length;
        await readOn();
      }
      return seen;
    });
    // Looks at the table itself, past everything of ours: whatever is visible must have all below it visible too.
    const eye = new pg.Client({ connectionString: url });
    await eye.connect();
    t.after(() => eye.end());
    const onlooker = (async () => {
      let looks = 0;
      for (let last = 0; !done; looks += 1) {
        await sleep(clock, 1);
        const { rows } = await eye.query(
          `select count(*)::int as held, (coalesce(max(position), $1) - $1)::int as wanted,
            coalesce(max(position), $1)::int as highest, (select position::int from log_head) as head
          from changes where position > $1`,
          [last],
        );
        const { held, wanted, highest, head } = rows[0];
        assert.deepEqual([held, head], [wanted, highest]);
        last = highest;
      }
      return looks;
    })();
    const raw = writeRounds({ url, rounds, writers: 4 });
    let written = false;
    const users = stores.map(async (store, i) => {
      for (let n = 0; !written; n += 1) {
        await create(store, draft(`/w/${i}/${n}`));
        await sleep(clock, 5);
      }
    });
    const committed = await raw.finally(() => {
      written = true;
    });
    await Promise.all(users).finally(() => {
      done = true;
      finished.resolve();
    });
    const position = await stores[0]!.log.position();
    const wanted = Array.from({ length: position }, (_, i) => i + 1);
    for (const seen of await Promise.all(followers)) assert.deepEqual(seen, wanted);
    const looks = await onlooker;
    assert.ok(looks > rounds / 10 && committed > rounds * 0.8 && position > rounds);
    assert.equal((await wholeLog(stores[0]!)).length, position);
  });

  it('a server that was away while changes were forgotten starts anew instead of passing them', async (t) => {
    const url = await server.database();
    const [one, two] = [await opened(t, url), await opened(t, url)];
    await create(one, draft('/a'));
    // Past the store, so that nothing tells the other server.
    await server.query('update log_head set position = 9, oldest = 10; delete from changes', url);
    await assert.rejects(two.log.read(1, 10), fault('state/refused', /are forgotten/));
    assert.equal((await create(two, draft('/b'))).seq, 10);
    assert.deepEqual(
      (await two.log.read(9, 10)).map((change) => change.position),
      [10],
    );
  });
});

describe('PostgreSQL that fails', () => {
  it('a database that is not there is said to be so, without the password', async () => {
    const here = new URL((await server.database()).replace('@/', '@x/'));
    const socket = here.searchParams.get('host')!;
    await assert.rejects(
      openStore({ url: `postgres://mutual:secret@/none?host=${socket}` }),
      (error: Error) => fault('config/invalid', /\/none does not exist/)(error) && !/secret/.test(error.message),
    );
    await assert.rejects(
      openStore({ url: 'postgres://mutual@/d?host=/nowhere' }),
      fault('peer/unavailable', /cannot be reached/),
    );
  });

  it('a value that PostgreSQL cannot keep is refused as input', async (t) => {
    const store = await opened(t, await server.database());
    await assert.rejects(create(store, draft('/a', { hint: 'a\0b' })), fault('input/invalid', /NUL/));
    await create(store, draft('/a'));
  });

  it('a newer schema is refused, naming both versions', async () => {
    const url = await server.database();
    await (await openStore({ url })).close();
    await server.query('insert into schema_version values (7, 6)', url);
    await assert.rejects(
      openStore({ url }),
      fault('data/foreign', new RegExp(`schema 7, this program knows ${migrations.length}\\b`)),
    );
  });

  it('a server that may not change the schema says so, and starts when "server migrate" has made it', async (t) => {
    const url = await server.database();
    await assert.rejects(
      openStore({ url, migrate: false }),
      fault('state/refused', /is empty, and this server may not/),
    );
    const { rows } = await server.query(`select count(*)::int as n from pg_tables where schemaname = 'public'`, url);
    assert.equal(rows[0].n, 0);
    const migrated = await openStore({ url });
    assert.deepEqual(migrated.schema, { before: 0, after: migrations.length });
    await migrated.close();
    const store = await openStore({ url, migrate: false });
    t.after(() => store.close());
    await create(store, draft('/a'));
  });

  it('a read-only database is not ready, says why, and its reads go on', async (t) => {
    const url = await server.database();
    const store = await opened(t, url);
    await create(store, draft('/a'));
    await store.ping();
    await server.query(
      'alter database ' +
        new URL(url.replace('@/', '@x/')).pathname.slice(1) +
        ' set default_transaction_read_only = on',
      url,
    );
    await server.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
      url,
    );
    // The store may still hold a connection whose end it has not seen: it asks again until the database itself answers.
    const unreachable = () =>
      store.ping().then(
        () => false,
        (error: Error) => error.message.endsWith('cannot be reached'),
      );
    while (await unreachable());
    await assert.rejects(store.ping(), fault('peer/unavailable', /is read-only/));
    await assert.rejects(create(store, draft('/b')), fault('peer/unavailable', /is read-only/));
    assert.equal((await store.entries.scan(0, 10)).length, 1);
  });

  it('a write that fails for want of space counts for readiness until one has worked', async (t) => {
    const url = await server.database();
    const store = await opened(t, url);
    await server.query(
      `create function full_disk() returns trigger language plpgsql as $$ begin raise exception 'no space' using errcode = '53100'; end $$;
       create trigger full_disk before insert on changes for each row execute function full_disk()`,
      url,
    );
    await assert.rejects(create(store, draft('/a')), fault('system/failed', /disk is full/));
    await assert.rejects(store.ping(), fault('system/failed', /disk is full/));
    await server.query('drop trigger full_disk on changes', url);
    await create(store, draft('/a'));
    await store.ping();
  });

  it('a log that lost changes, or was given a new identity, is told of, and the new identity is given once', async (t) => {
    const url = await server.database();
    const clock = drivenClock(0);
    const stores = [await openStore({ url, clock }), await openStore({ url, clock })] as const;
    for (const store of stores) t.after(() => store.close());
    const told = stores.map((store) => new Promise<Error>((resolve) => store.log.onBroken(resolve)));
    for (let i = 0; i < 5; i += 1) await create(stores[0], draft(`/w/${i}`));
    await stores[1].log.read(0, 10);
    // As a restored backup leaves it.
    await server.query('delete from changes where position > 3; update log_head set position = 3', url);
    await clock.advance(5000);
    for (const fault of await Promise.all(told)) assert.match(fault.message, /ends at 3 where 5 was committed/);
    assert.deepEqual([await stores[0].log.renew('new-1'), await stores[1].log.renew('new-2')], [true, false]);
    const again = await openStore({ url, clock });
    t.after(() => again.close());
    assert.equal(again.log.id, 'new-1');
    const renamed = new Promise<Error>((resolve) => again.log.onBroken(resolve));
    assert.equal(await again.log.renew('new-3'), true);
    await clock.advance(5000);
    assert.match((await renamed).message, /new identity/);
  });

  it('a server that stops in the middle of a write loses its turn, and the others write on', async (t) => {
    const url = await server.database();
    const store = await opened(t, url);
    const pool = connections(url);
    t.after(() => pool.close());
    const held = pool.use('begin isolation level read committed', async (session) => {
      // Shorter than what servers are given, so that the test is.
      await session.run(`set idle_in_transaction_session_timeout = '300ms'; select * from log_head for update`);
      await create(store, draft('/a'));
      await session.run('commit');
    });
    await assert.rejects(held, fault('peer/unavailable', /./));
    await assertLogIsWhole(store);
  });

  it('a write under way when its connection is cut is refused, and the next one works', async (t) => {
    const url = await server.database();
    const store = await opened(t, url);
    await store.nodes.attest(node('/spire/agent/x509pop/one'));
    // Holds the head of the log, so that the write has begun and waits.
    const pool = connections(url);
    t.after(() => pool.close());
    await pool.use('begin', async (session) => {
      await session.run('select * from log_head for update');
      const write = create(store, draft('/a'));
      const refused = assert.rejects(write, fault('peer/unavailable', /cannot be reached/));
      await until('the write waits for the lock', 60_000, async () => {
        const { rows } = await server.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
          url,
        );
        return rows.length === 1;
      });
      await refused;
      await session.run('rollback');
    });
    await create(store, draft('/a'));
    assert.equal(await store.nodes.renew(id('/spire/agent/x509pop/one'), '2', 2), true);
    await assertLogIsWhole(store);
  });

  it('after a restart of the database the same store writes, reads and is told of others again', async (t) => {
    const url = await server.database();
    const [one, two] = [await opened(t, url), await opened(t, url)];
    const first = await create(one, draft('/a'));
    await server.stop();
    await assert.rejects(one.ping(), fault('peer/unavailable', /cannot be reached/));
    await assert.rejects(create(one, draft('/b')), fault('peer/unavailable', /cannot be reached/));
    await server.start();
    await one.ping();
    assert.deepEqual(await one.entries.get(first.id), first);
    const told = new Promise<number>((resolve) => two.log.onAppend(resolve));
    await create(one, draft('/b'));
    assert.equal(await told, 2);
    await assertLogIsWhole(two);
  });
});
