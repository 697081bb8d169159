/** Streams that come and go leave nothing behind in an agent: no descriptors, no memory, no followers of the cache. */
import { equal, ok } from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { connectUnix } from '../../src/rpc/connect.ts';
import { settle } from '../support/clock.ts';
import { header, type Pair, startPair } from '../support/pair.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Opens `count` streams on connections of their own, takes the first message of each, and leaves. */
async function openAndDrop(pair: Pair, count: number): Promise<void> {
  const perConnection = 100;
  for (let done = 0; done < count; done += perConnection) {
    const channel = connectUnix(pair.agent.socket);
    const streams = Array.from({ length: perConnection }, () =>
      channel.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header }),
    );
    const firsts = await Promise.all(streams.map((stream) => stream.next()));
    ok(firsts.every(({ value }) => value.svids.length === 1));
    await Promise.all(streams.map((stream) => stream.return?.()));
    channel.close();
  }
}

/** Descriptors of this process and bytes of its heap, when what is over has been cleared away and neither is less yet. */
async function rest(): Promise<{ descriptors: number; bytes: number }> {
  let least = { descriptors: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY };
  for (let same = 0; same < 5; ) {
    await settle(50);
    collect();
    const now = { descriptors: readdirSync('/proc/self/fd').length, bytes: process.memoryUsage().heapUsed };
    same = now.descriptors < least.descriptors ? 0 : same + 1;
    least = {
      descriptors: Math.min(least.descriptors, now.descriptors),
      bytes: Math.min(least.bytes, now.bytes),
    };
  }
  return least;
}

test('10,000 streams opened and dropped leave memory and descriptors where they were', {
  timeout: 240_000,
}, async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  await openAndDrop(pair, 2_000);
  const before = await rest();
  await openAndDrop(pair, 10_000);
  const after = await rest();
  t.diagnostic(
    `${before.descriptors} descriptors, then ${after.descriptors}; ${before.bytes} bytes, then ${after.bytes}`,
  );
  equal(after.descriptors, before.descriptors);
  ok(after.bytes - before.bytes < 2 << 20, `${after.bytes - before.bytes} bytes more, for 10,000 streams`);
});
