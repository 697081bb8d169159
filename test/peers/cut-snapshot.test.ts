/** A snapshot that breaks off half way, again and again: nothing of it counts, and the agent has everything in the end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { leftBy } from '../../bench/agents/applied.ts';
import { type Fleet, startFleet } from '../../bench/agents/fleet.ts';
import { startServer } from './support/cluster.ts';
import { makePlace } from './support/place.ts';
import { agentPorts } from './support/three-servers.ts';

const place = makePlace();
const closes: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const close of closes.reverse()) await close();
  await place.close();
});

/** A way to a port on which the first connections that bring more than so many bytes are cut there. */
async function cuttingWay(to: number, cuts: readonly number[]) {
  const left = [...cuts];
  const done: number[] = [];
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(to, '127.0.0.1');
    let bytes = 0;
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
    near.pipe(far);
    far.on('data', (piece: Buffer) => {
      bytes += piece.length;
      const most = left[0];
      if (most !== undefined && bytes > most) {
        done.push(left.shift() as number);
        near.destroy();
      } else if (!near.write(piece)) {
        far.pause();
        near.once('drain', () => far.resume());
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closes.push(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, done };
}

test('a snapshot cut after 0.3, 1.3 and 1.9 MB: none of it is applied, and one that comes whole is, once', async () => {
  const server = await startServer(place, 'cut-server', `sqlite:${place.path('cut', 'server.db')}`);
  const way = await cuttingWay(server.port, [300_000, 1_300_000, 1_900_000]);
  const entries = 10_000;
  const fleet: Fleet = await startFleet({
    server: { host: '127.0.0.1', port: way.port },
    adminSocket: server.adminSocket,
    agents: 1,
    entriesEach: entries,
    fetchSvids: false,
    ...agentPorts,
  });
  closes.push(() => fleet.close());
  const agent = fleet.agents[0]!;
  assert.deepEqual(way.done, [300_000, 1_300_000, 1_900_000], 'each was cut where it was meant to be');
  const snapshots = agent.applied.filter(({ snapshot }) => snapshot);
  assert.equal(snapshots.length, 1);
  assert.equal(agent.applied.indexOf(snapshots[0]!), 0, 'nothing was applied before it');
  assert.equal(leftBy(agent.applied).length, entries);
  assert.deepEqual(fleet.wrong(), []);
  assert.equal(agent.attestations, 1);
  assert.equal(agent.status().outage, undefined);
});
