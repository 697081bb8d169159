/**
 * Statements written with kysely, compiled once for each engine and then only bound.
 *
 * Building and compiling a query with kysely costs about as much as 20 rows inserted through a prepared statement, so a
 * statement is built once with slots where its values go. What runs is a prepared statement on both engines.
 */
import {
  type Compilable,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import type { Tables } from './schema.ts';

export type Engine = 'sqlite' | 'postgres';
export type SqlValue = string | number | null;

/** What a statement needs and gives. `name` is unique, and names the prepared statement on PostgreSQL. */
export interface Statement<P, R> {
  readonly name: string;
  /** SQL text of an engine. */
  text(engine: Engine): string;
  /** The values in the order in which the text wants them. */
  bind(engine: Engine, given: P): SqlValue[];
  /** Only for inference: rows are of this type. */
  readonly row?: R;
}

/** One database connection. Nothing else runs on it between `begin` and `commit`. */
export interface Session {
  readonly engine: Engine;
  all<P, R>(statement: Statement<P, R>, given: P): Promise<R[]>;
  /** Runs text without values: transactions, savepoints, definitions of tables. */
  run(text: string): Promise<void>;
}

type Given = Record<string, SqlValue> | readonly SqlValue[];
interface Compiled {
  readonly text: string;
  readonly slots: readonly { readonly slot: string | number }[];
}

/** Kysely instances that only build and compile: they have no connection. */
export const builders: Record<Engine, Kysely<Tables>> = {
  sqlite: new Kysely<Tables>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler: () => new SqliteQueryCompiler(),
    },
  }),
  postgres: new Kysely<Tables>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  }),
};

let made = 0;

/**
 * Makes a statement.
 * @param build builds the query; `slot(name)` stands for a value given at each run
 */
export function statement<P extends Given, R>(
  build: (db: Kysely<Tables>, slot: <K extends keyof P>(name: K) => P[K], engine: Engine) => Compilable<R>,
): Statement<P, R> {
  made += 1;
  const compiled: Partial<Record<Engine, Compiled>> = {};
  const compile = (engine: Engine): Compiled => {
    const slot = <K extends keyof P>(name: K): P[K] => ({ slot: name }) as unknown as P[K];
    const query = build(builders[engine], slot, engine).compile();
    const done = { text: query.sql, slots: query.parameters as Compiled['slots'] };
    compiled[engine] = done;
    return done;
  };
  return {
    name: `m${made}`,
    text: (engine) => (compiled[engine] ?? compile(engine)).text,
    bind: (engine, given) =>
      (compiled[engine] ?? compile(engine)).slots.map((one) =>
        // A value written into the query itself, such as a constant, is bound as it stands.
        typeof one === 'object' && one !== null ? (given as Record<string | number, SqlValue>)[one.slot]! : one,
      ),
  };
}

/** Statements that take lists come in sizes, so that few are prepared; a list is cut to chunks of these. */
const sizes = [64, 16, 4, 1];

const inserts = new Map<string, Statement<SqlValue[], unknown>>();

/** Inserts rows of one shape, several with each statement. */
export async function insert<T extends keyof Tables>(
  session: Session,
  table: T,
  rows: readonly Tables[T][],
): Promise<void> {
  if (rows.length === 0) return;
  const columns = Object.keys(rows[0]!);
  for (const chunk of chunks(rows)) {
    const key = `${table} ${chunk.length}`;
    let one = inserts.get(key);
    if (one === undefined) {
      const count = chunk.length;
      one = statement<SqlValue[], unknown>((db, slot) => {
        const row = (i: number) => Object.fromEntries(columns.map((name, j) => [name, slot(i * columns.length + j)]));
        // biome-ignore lint/suspicious/noExplicitAny: the columns are those of `Tables[T]`, which kysely cannot see through T
        return (db as Kysely<any>).insertInto(table).values(Array.from({ length: count }, (_, i) => row(i)));
      });
      inserts.set(key, one);
    }
    const values: SqlValue[] = [];
    for (const row of chunk) for (const name of columns) values.push((row as Record<string, SqlValue>)[name]!);
    await session.all(one, values);
  }
}

/** A statement with a list of values, as in `where id in (...)`; the statement is built for a few sizes of list. */
export function listStatement<V extends SqlValue, R>(
  build: (db: Kysely<Tables>, values: V[]) => Compilable<R>,
): (session: Session, values: readonly V[]) => Promise<R[]> {
  const bySize = new Map<number, Statement<V[], R>>();
  return async (session, values) => {
    const rows: R[] = [];
    for (const chunk of chunks(values)) {
      let one = bySize.get(chunk.length);
      if (one === undefined) {
        const count = chunk.length;
        one = statement<V[], R>((db, slot) =>
          build(
            db,
            Array.from({ length: count }, (_, i) => slot(i) as V),
          ),
        );
        bySize.set(count, one);
      }
      const found = await session.all(one, chunk as V[]);
      for (const row of found) rows.push(row);
    }
    return rows;
  };
}

function* chunks<T>(all: readonly T[]): Generator<readonly T[]> {
  let at = 0;
  for (const size of sizes) {
    for (; all.length - at >= size; at += size) yield all.slice(at, at + size);
  }
}
