import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { it } from 'node:test';
import { scanEntries } from '../../../server/store/entries.ts';
import { readChanges, readHead } from '../../../server/store/log.ts';
import { migrate } from '../../../server/store/migrations/migrate.ts';
import { openSqlite } from '../../../server/store/sqlite-session.ts';
import { replayed } from '../../suites/store.ts';

/** How often to kill; a longer run is asked for through the environment. */
const rounds = Number(process.env.MUTUAL_KILL_ROUNDS ?? 40);
const lanes = 4;

/** A small generator of its own, so that a run can be repeated: mulberry32. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** Runs the writer until it has printed `lines` lines, kills it, and gives everything it had printed by then. */
async function writeAndKill(path: string, prefix: string, lines: number): Promise<string[]> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'write-forever.ts'), path, prefix], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  const said: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line);
    if (said.length === lines) child.kill('SIGKILL');
  }
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  return said;
}

/** Remembers the last acknowledged state of each id: its revision, or -1 when deleted. */
function remember(acknowledged: Map<string, number>, said: readonly string[]): void {
  for (const line of said) {
    const [what, id, revision] = line.split(' ') as [string, string, string];
    if (what === 'created') acknowledged.set(id, 0);
    if (what === 'updated') acknowledged.set(id, Number(revision));
    if (what === 'deleted') acknowledged.set(id, -1);
  }
}

async function check(path: string, acknowledged: ReadonlyMap<string, number>): Promise<void> {
  const { session, close } = openSqlite(path, 1);
  try {
    await session.run('begin');
    await migrate(session, 'log');
    await session.run('commit');
    const entries = await scanEntries(session, 0, 1_000_000);
    const changes = (await readChanges(session, 0, 1_000_000)).map(({ change }) => change);
    const { position } = await readHead(session);
    assert.deepEqual(
      changes.map((change) => change.position),
      Array.from({ length: position }, (_, i) => i + 1),
    );
    assert.deepEqual(replayed(changes).entries, entries);
    const stored = new Map(entries.map((entry) => [entry.id, entry.revision]));
    for (const [id, revision] of acknowledged) {
      const now = stored.get(id);
      // Writes after the last acknowledged one may have been committed too: later revisions, or the deletion that ends
      // the life of every fourth entry.
      const endsDeleted = Number(id.split('-').at(-1)) % 4 === 3;
      const kept = revision < 0 ? now === undefined : now === undefined ? endsDeleted : now >= revision;
      assert.ok(kept, `entry ${id} was acknowledged at revision ${revision} and is stored at ${now}`);
    }
  } finally {
    close();
  }
}

it(`after SIGKILL in the middle of writing, ${rounds} times, the store is consistent and holds every acknowledged write`, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'mutual-kill-'));
  t.after(() => rmSync(dir, { recursive: true }));
  let left = rounds;
  let total = 0;
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      const path = join(dir, `${lane}.db`);
      const number = numbers(lane + 1);
      const acknowledged = new Map<string, number>();
      for (let round = 0; left > 0; round += 1) {
        left -= 1;
        // One in eight dies while it opens the database.
        const lines = number(8) === 0 ? 1 : 2 + number(150);
        const said = await writeAndKill(path, `${lane}-${round}`, lines);
        remember(acknowledged, said);
        await check(path, acknowledged);
      }
      total += acknowledged.size;
    }),
  );
  assert.ok(total > rounds, 'hardly anything was written');
});
