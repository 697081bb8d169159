/**
 * A server that packets no longer reach, in a network namespace: nothing is reset, every connection looks alive, to its
 * agents and to its database. In real time, since it is the kernel's TCP that has to be outlived.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { sleep } from '../../src/run/clock.ts';
import { checkedFleet } from './support/checked-fleet.ts';
import { checksOf } from './support/cluster.ts';
import { makeNetns, type Netns } from './support/netns.ts';
import { makePlace } from './support/place.ts';
import { run } from './support/program.ts';
import { agentPorts, fleetSize as agents, startThreeServers, type ThreeServers } from './support/three-servers.ts';
import { until } from './support/until.ts';

const place = makePlace();
const { clock } = agentPorts;
const lost = 2;
let netns: Netns;
let rig: ThreeServers;

before(async () => {
  netns = await makeNetns();
  rig = await startThreeServers(place, { index: lost, netns });
});
after(async () => {
  await rig?.close();
  await place.close();
  await netns?.close();
});

/** What its own supervisor is told, beside it in the namespace. */
const readyOfLost = async (): Promise<string> => {
  const fetching = `fetch('http://${rig.cluster.servers[lost]!.health}/ready').then((it) => it.text()).then(console.log)`;
  const [command, ...args] = [...netns.prefix, process.execPath, '-e', fetching];
  return (await run(command!, args, { deadlineMs: 60_000 })).stdout;
};

test('one of three servers is cut off for a minute from 200 agents and the database, under load: no entry missed, no SVID lost, nobody attests again', async (t) => {
  const { cluster, fleet } = rig;
  const checked = checkedFleet(rig);
  const there = cluster.balancer.counts()[lost]!;
  assert.ok(there > agents / 6, `agents are on the server that will be lost: ${there}`);
  // So many changes that everyone has some, and no more than an agent that comes back is told one by one.
  const works = [checked.load(t, [0, 1], 10), checked.load(t, [lost], 10)];
  await sleep(clock, 1000);
  await netns.cut();
  const start = performance.now();
  const since = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  await until('the lost server says that it is not ready, and why', 60_000, async () =>
    /"store":"(no answer in|.* cannot be reached)/.test(await readyOfLost()),
  );
  console.log(`the lost server says so after ${since()}`);
  assert.equal((await checksOf(cluster.servers[0]!)).status, 'ok', 'the others are ready');
  await sleep(clock, 60_000 - (performance.now() - start));
  const silent = fleet.agents.filter((agent) => agent.status().outage !== undefined).length;
  console.log(`mended after ${since()}; ${silent} of ${there} agents have no server yet`);
  await netns.mend();
  const [elsewhere, at] = [await works[0]!.stop(), await works[1]!.stop()];
  console.log(`changes acknowledged: ${elsewhere} by the others, ${at} by the lost server`);
  assert.ok(elsewhere > 100 && at > 0);
  await until('the lost server is ready again', 60_000, async () => /"status":"ok"/.test(await readyOfLost()), 500);
  console.log(`the lost server is ready again after ${since()}`);
  await checked.settled('after the partition', 150_000);
  console.log(`all ${agents} agents are level ${since()} after the cut`);
});
