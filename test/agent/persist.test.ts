/** What is written when: only what changed, and never so often that the disk does nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { persist } from '../../agent/persist.ts';
import type { AgentState } from '../../agent/state.ts';
import { silentLog } from '../../src/log.ts';
import { agentRig } from './support/agent-rig.ts';

/** A rig whose cache is written to a disk that takes `took` milliseconds for the SVIDs. */
async function written(took = 0) {
  const rig = await agentRig();
  const writes: string[] = [];
  const state = {
    saveWorld: async (world: { entries: ReadonlyMap<string, unknown> }) =>
      void writes.push(`world of ${world.entries.size}`),
    async saveSvids(svids: readonly unknown[]) {
      writes.push(`${svids.length} SVIDs`);
      rig.clock.jump(took);
    },
  } as unknown as AgentState;
  rig.server.put({ id: 'a' });
  await rig.start();
  const end = new AbortController();
  const done = persist(rig.cache, state, { clock: rig.clock, log: silentLog }, end.signal).catch(() => {});
  return {
    rig,
    writes,
    async stop() {
      end.abort(new Error('over'));
      await done;
      rig.stop();
    },
  };
}

test('a burst of changes is one write, and a renewal of SVIDs does not write the entries', async () => {
  const { rig, writes, stop } = await written();
  rig.server.put({ id: 'b' });
  rig.server.put({ id: 'c' });
  await rig.clock.advance(2_000);
  assert.deepEqual(writes.splice(0), ['world of 3', '3 SVIDs']);
  // Half of their life and more: all three are renewed, which says nothing new of the world.
  await rig.clock.advance(3_600_000);
  assert.ok(writes.length > 0);
  assert.deepEqual(new Set(writes.splice(0)), new Set(['3 SVIDs']));
  rig.server.remove('b');
  await rig.clock.advance(2_000);
  assert.deepEqual(writes, ['world of 2', '2 SVIDs']);
  await stop();
});

test('after a writing that took long the next one waits ten times as long', async () => {
  const { rig, writes, stop } = await written(3_000);
  rig.server.put({ id: 'b' });
  await rig.clock.advance(2_000);
  assert.equal(writes.splice(0).length, 2);
  rig.server.put({ id: 'c' });
  await rig.clock.advance(29_000);
  assert.deepEqual(writes, []);
  await rig.clock.advance(1_000);
  assert.deepEqual(writes, ['world of 3', '3 SVIDs']);
  await stop();
});

test('what was not written yet is written at the end', async () => {
  const { rig, writes, stop } = await written();
  rig.server.put({ id: 'b' });
  await rig.clock.advance(0);
  await stop();
  assert.deepEqual(writes, ['world of 2', '2 SVIDs']);
});
