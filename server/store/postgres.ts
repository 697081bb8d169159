/**
 * The store over PostgreSQL, for several servers of one trust domain. Writers take turns on the head of the log (see
 * transaction.ts); what other servers commit is heard through NOTIFY, and found by a slow poll when that fails.
 */
import { sql } from 'kysely';
import { asFault, Fault } from '../../src/errors.ts';
import { type Backoff, backoffDelay } from '../../src/run/backoff.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import { bounded, oneAtATime } from './bounded.ts';
import { type Head, readHead } from './log.ts';
import { type Migrated, migrate } from './migrations/migrate.ts';
import { type Ask, type OperationName, reads, writes } from './operations.ts';
import { portsOver } from './ports.ts';
import { type Connections, connections, tookTooLong } from './postgres-session.ts';
import { type Recent, recentChanges } from './recent.ts';
import { type Session, statement } from './statement.ts';
import type { Store } from './store.ts';
import { commitTogether, type Write } from './transaction.ts';
import { type WriteHealth, writeHealth } from './write-health.ts';

/** Named, since a database's default may be another one: a statement must see what was committed before it began. */
const begin = 'begin isolation level read committed';
const channel = 'mutual_log';
/** Keeps two servers from migrating at once: "mutual" in ASCII. */
const migrationLock = 0x6d757475616c;
/** How often to look for changes that no notification told of, milliseconds. */
const pollMs = 5000;
const reconnect: Backoff = { first: 200, most: 10_000, factor: 2 };
const mostTogether = 256;
const pageSize = 1000;

interface Waiting {
  readonly write: Write;
  resolve(value: unknown): void;
  reject(fault: Fault): void;
}

// biome-ignore lint/suspicious/noExplicitAny: the arguments were checked against the table where the question was asked
type Operation = (session: any, ...given: any[]) => Promise<unknown>;

/** `on` on a standby, and where a database's default says so. Asked of a table, so that one who holds it is noticed too. */
const readOnly = statement<Record<string, never>, { value: string }>((db) =>
  db.selectFrom('log_head').select(sql<string>`current_setting('transaction_read_only')`.as('value')),
);

interface PostgresPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly logId: string;
  readonly migrate: boolean;
}

/**
 * Opens the store. Throws `peer/unavailable`, `config/invalid` (user, database), `data/foreign`, `data/corrupt` and
 * `state/refused` (a schema that may not be changed).
 */
export async function openPostgresStore(url: string, ports: PostgresPorts): Promise<Store> {
  const pool = connections(url);
  try {
    const { head, schema } = await pool.use(begin, async (session) => {
      await session.run(`select pg_advisory_xact_lock(${migrationLock})`);
      const schema = await migrate(session, ports.logId, ports.migrate);
      const head = await readHead(session);
      await session.run('commit');
      return { head, schema };
    });
    const recent = recentChanges(head.position);
    const health = writeHealth(ports.clock);
    const follower = follow(pool, recent, head.logId, ports);
    const committer = commitQueue(pool, recent, follower.catchUp, health);
    return storeOver(pool, recent, head, schema, follower, committer, health);
  } catch (error) {
    await pool.close();
    throw error;
  }
}

function storeOver(
  pool: Connections,
  recent: Recent,
  { logId }: Head,
  schema: Migrated,
  follower: Follower,
  committer: Committer,
  health: WriteHealth,
): Store {
  let closing: Promise<void> | undefined;
  // Whoever asks each second of a database that hangs must not take all connections.
  const askReadOnly = oneAtATime(() => pool.use(undefined, (session) => session.all(readOnly, {})));
  const ask = bounded((async (name: OperationName, ...given: unknown[]) => {
    if (closing !== undefined) throw new Fault('peer/unavailable', 'the store is closed');
    if (name in writes) return await committer.add((tx) => (writes as Record<string, Operation>)[name]!(tx, ...given));
    return await pool.use(undefined, (session) => (reads as Record<string, Operation>)[name]!(session, ...given));
  }) as Ask);
  return {
    ...portsOver(ask),
    schema,
    async ping() {
      const [found] = await askReadOnly();
      if (found?.value === 'on') {
        throw new Fault('peer/unavailable', 'the database is read-only', {
          hint: 'Connect to the primary, not to a standby.',
        });
      }
      health.check();
    },
    log: {
      id: logId,
      // Not from memory: another server may have committed what this one has not heard of yet.
      position: async () => (await ask('readHead')).position,
      oldest: async () => (await ask('readHead')).oldest,
      async read(after, limit) {
        if (after >= recent.newest) await follower.catchUp();
        return recent.read(after, limit) ?? (await ask('readChanges', after, limit)).map(({ change }) => change);
      },
      onAppend: recent.onAppend,
      prune: (position) => ask('pruneChanges', position),
      renew: (id) => ask('renewLog', logId, id),
      onBroken: follower.onBroken,
    },
    close() {
      closing ??= (async () => {
        await committer.drained();
        await follower.close();
        await pool.close();
      })();
      return closing;
    },
  };
}

interface Committer {
  add(write: Write): Promise<unknown>;
  /** Resolves when nothing waits. */
  drained(): Promise<void>;
}

/** Commits what waits together: a group takes its turn among the servers once, and one flush of the disk serves it. */
function commitQueue(pool: Connections, recent: Recent, catchUp: () => Promise<void>, health: WriteHealth): Committer {
  const waiting: Waiting[] = [];
  let working: Promise<void> | undefined;

  const commit = async (group: readonly Waiting[]): Promise<void> => {
    const { outcomes, changes } = await pool.use(begin, (session) =>
      commitTogether(
        session,
        group.map((one) => one.write),
        undefined,
        `notify ${channel}; commit`,
      ),
    );
    // First the log, then the answers. What was committed is so even when the rest of the log cannot be read now.
    if (!recent.append(changes)) await catchUp().catch(() => {});
    for (const [i, outcome] of outcomes.entries()) {
      if ('fault' in outcome) {
        health.failed(outcome.fault);
        group[i]!.reject(outcome.fault);
      } else {
        health.worked();
        group[i]!.resolve(outcome.value);
      }
    }
    const [first] = outcomes;
    if (first !== undefined && 'fault' in first && tookTooLong(first.fault)) giveUp(first.fault);
  };
  /** What waited behind a write that waited in vain has waited for the same thing: nobody waits longer than one does. */
  const giveUp = (fault: Fault): void => {
    for (const one of waiting.splice(0)) one.reject(fault);
  };
  const work = async (): Promise<void> => {
    while (waiting.length > 0) {
      const group = waiting.splice(0, mostTogether);
      await commit(group).catch((error) => {
        const fault = asFault(error);
        health.failed(fault);
        for (const one of group) one.reject(fault);
        if (tookTooLong(fault)) giveUp(fault);
      });
    }
    working = undefined;
  };
  return {
    add(write) {
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      waiting.push({ write, resolve, reject });
      // A turn later, so that writes asked for together go together.
      working ??= Promise.resolve().then(work);
      return promise;
    },
    async drained() {
      await working;
    },
  };
}

interface Follower {
  /** Resolves when every change committed before the call is in `recent`. */
  catchUp(): Promise<void>;
  /** See `ChangeLog.onBroken`. */
  onBroken(told: (fault: Fault) => void): () => void;
  close(): Promise<void>;
}

function follow(pool: Connections, recent: Recent, logId: string, { clock, random }: PostgresPorts): Follower {
  let running: Promise<void> | undefined;
  let next: Promise<void> | undefined;
  let closed = false;
  const cancels = { poll: () => {}, connect: () => {} };
  const listeners = new Set<(fault: Fault) => void>();
  let broken: Fault | undefined;

  const catchUp = (): Promise<void> => {
    // A read under way may have begun before what the caller knows of was committed: only the next one counts.
    if (running !== undefined) {
      next ??= running
        .catch(() => {})
        .then(() => {
          next = undefined;
          return catchUp();
        });
      return next;
    }
    running = pool
      .use(undefined, (session) => readOn(session, recent))
      .finally(() => {
        running = undefined;
      });
    return running;
  };
  const wake = (): void => void catchUp().catch(() => {});
  /** Whether it is the log it was: what this server knows was committed must be there still. */
  const check = async (): Promise<void> => {
    const { newest } = recent;
    const head = await pool.use(undefined, readHead);
    if (head.logId === logId && head.position >= newest) return;
    if (broken !== undefined) return;
    broken = lostLog(head, newest, logId);
    for (const told of [...listeners]) told(broken);
  };
  const poll = (): void => {
    cancels.poll = clock.after(pollMs, () => {
      wake();
      check().catch(() => {});
      poll();
    });
  };
  let listener: ReturnType<Connections['lone']> | undefined;
  const listen = async (failures: number): Promise<void> => {
    const client = pool.lone();
    listener = client;
    let over = false;
    const again = (): void => {
      if (over || closed) return;
      over = true;
      client.end().catch(() => {});
      const delay = backoffDelay(reconnect, failures + 1, random.unit());
      cancels.connect = clock.after(delay, () => void listen(failures + 1));
    };
    client.on('error', again).on('end', again).on('notification', wake);
    try {
      await client.connect();
      await client.query(`listen ${channel}`);
      failures = 0;
      wake();
      // What was connected before may have been another database under the same address.
      check().catch(() => {});
    } catch {
      again();
    }
  };
  poll();
  void listen(0);
  return {
    catchUp,
    onBroken(told) {
      if (broken !== undefined) told(broken);
      listeners.add(told);
      return () => listeners.delete(told);
    },
    async close() {
      closed = true;
      cancels.poll();
      cancels.connect();
      await listener?.end().catch(() => {});
      await running?.catch(() => {});
    },
  };
}

function lostLog(head: Head, newest: number, logId: string): Fault {
  const hint = 'Start the servers again.';
  if (head.logId !== logId)
    return new Fault('data/foreign', "the database's log has been given a new identity", { hint });
  return new Fault(
    'data/foreign',
    `the database has lost changes: its log ends at ${head.position} where ${newest} was committed`,
    { hint },
  );
}

/** Reads on from the newest change known to the end of the log. */
async function readOn(session: Session, recent: Recent): Promise<void> {
  for (;;) {
    const changes = await reads.readChanges(session, recent.newest, pageSize).catch(async (error: unknown) => {
      if (!(error instanceof Fault) || error.code !== 'state/refused') throw error;
      // They were forgotten while this server was away: its readers will be refused, and start from a scan.
      const { position } = await readHead(session);
      // A log that ends before what is known here has lost changes: that is found, and said, by the poll.
      if (position > recent.newest) recent.restart(position);
      return [];
    });
    recent.append(changes);
    if (changes.length < pageSize) return;
  }
}
