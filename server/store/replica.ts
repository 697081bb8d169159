/**
 * A read replica: a standby that repeats the database, some way behind it. What a server reads whole at its start can come
 * from there, since the log says what was changed after; whether it is such a copy is asked before anything is believed.
 */
import { isDeepStrictEqual } from 'node:util';
import { sql } from 'kysely';
import { Fault, quote } from '../../src/errors.ts';
import { ownerOf } from './claim.ts';
import { readChanges, readHead } from './log.ts';
import { schemaOf } from './migrations/migrate.ts';
import { type Ask, type OperationName, reads } from './operations.ts';
import { portsOver } from './ports.ts';
import { connections, placeOf } from './postgres-session.ts';
import { type Session, statement } from './statement.ts';
import type { ChangeLog, Store } from './store.ts';

/** What a world is loaded from. */
export interface Loadable {
  readonly log: Pick<ChangeLog, 'position'>;
  readonly entries: Pick<Store['entries'], 'scan'>;
  readonly nodes: Pick<Store['nodes'], 'scan'>;
  readonly bundles: Pick<Store['bundles'], 'list'>;
  readonly revocations: Pick<Store['revocations'], 'list' | 'listCrls'>;
}

export interface Replica extends Loadable {
  /**
   * Resolves when this is a copy of the store's database whose every change the store has too. Called after something was
   * read it holds for that. Throws a Fault that says what it is instead.
   */
  check(store: Pick<Store, 'log' | 'schema'>): Promise<void>;
  close(): Promise<void>;
}

/** How long it may take over one statement, milliseconds: a start does not wait for it as for the database itself. */
const patienceMs = 10_000;

const recovering = statement<Record<string, never>, { standby: boolean }>((db) =>
  db.selectNoFrom(sql<boolean>`pg_is_in_recovery()`.as('standby')),
);

// biome-ignore lint/suspicious/noExplicitAny: the arguments were checked against the table where the question was asked
type Operation = (session: any, ...given: any[]) => Promise<unknown>;

/** Makes ready to read from a replica; it is connected to at the first question. */
export function openReplica(url: string): Replica {
  const pool = connections(url, patienceMs);
  const ask = ((name: OperationName, ...given: unknown[]) =>
    pool.use(undefined, (session) => (reads as Record<string, Operation>)[name]!(session, ...given))) as Ask;
  const { entries, nodes, bundles, revocations } = portsOver(ask);
  const replica = `the replica at ${placeOf(url)}`;

  async function checkOn(session: Session, store: Pick<Store, 'log' | 'schema'>): Promise<void> {
    const [found] = await session.all(recovering, {});
    if (found?.standby !== true)
      throw new Fault('state/refused', `${replica} takes writes: it is no standby`, {
        hint: 'Give a standby of the database.',
      });
    const schema = await schemaOf(session);
    if (schema < store.schema.after)
      throw new Fault('state/refused', `${replica} has schema ${schema}, the database ${store.schema.after}`);
    const { logId, position } = await readHead(session);
    if (logId !== store.log.id) {
      const owner = await ownerOf(session);
      const whose = owner === undefined ? '' : `, of trust domain ${quote(owner)}`;
      throw new Fault('data/foreign', `${replica} repeats another database${whose}`, {
        hint: 'Give a standby of the database.',
      });
    }
    if (position === 0) return;
    // A standby of a primary that was left in a failover has the same log, with another end.
    if (position > (await store.log.position())) throw otherPast(position);
    const [ours] = await store.log.read(position - 1, 1);
    const [theirs] = await readChanges(session, position - 1, 1);
    if (!isDeepStrictEqual(ours, theirs?.change)) throw otherPast(position);
  }
  const otherPast = (position: number): Fault =>
    new Fault('data/foreign', `${replica} has another change ${position} than the database`, {
      hint: 'It follows a primary that is none any more: make it anew.',
    });

  return {
    log: { position: async () => (await ask('readHead')).position },
    ...{ entries, nodes, bundles, revocations },
    check: (store) => pool.use(undefined, (session) => checkOn(session, store)),
    close: () => pool.close(),
  };
}
