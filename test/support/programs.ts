/** Folders and programs of a test: a folder is removed after the programs of its test are gone, which may write until then. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

const running = new WeakMap<TestContext, ChildProcess[]>();

/** A new folder with a name that begins like this. It is removed when the test ends. */
export async function folderOf(test: TestContext, prefix: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  test.after(async () => {
    await Promise.all((running.get(test) ?? []).map(killed));
    await rm(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Has a program killed when the test ends. */
export function killAfter(test: TestContext, child: ChildProcess): void {
  const programs = running.get(test) ?? [];
  running.set(test, [...programs, child]);
  test.after(() => killed(child));
}

/** Kills a program and waits for its end. */
export async function killed(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
