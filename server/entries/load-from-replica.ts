/**
 * The world as a read replica has it, brought up to now from the database's log: what a start costs the database is then
 * the changes that the replica is behind by, and not every entry and node.
 */
import { asFault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { openReplica, type Replica } from '../store/replica.ts';
import type { Store } from '../store/store.ts';
import { loadWorld, type Memory, replay } from './world.ts';

/** Undefined when the replica cannot be used, for whatever reason: that is told to the log, and the database read. */
export async function loadFromReplica(url: string, store: Store, log: Log): Promise<Memory | undefined> {
  const replica = openReplica(url);
  try {
    return await load(replica, store, log);
  } catch (error) {
    const { code, message, hint, detail } = asFault(error);
    log.warn(
      { code, message, ...(hint && { hint }), ...(detail && { detail }) },
      'replica not used; the database is read',
    );
    return undefined;
  } finally {
    await replica.close().catch(() => {});
  }
}

async function load(replica: Replica, store: Store, log: Log): Promise<Memory> {
  await replica.check(store);
  const memory = await loadWorld(replica);
  // What was read may be newer than what was checked.
  await replica.check(store);
  const { position } = memory;
  const newest = await store.log.position();
  await replay(memory, store.log, () => newest);
  log.info(
    { entries: memory.entries.size, nodes: memory.nodes.size, position, behind: newest - position },
    'read from the replica',
  );
  return memory;
}
