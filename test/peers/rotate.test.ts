/** All authorities of three servers replaced in an emergency, with 200 agents, one of them away, and servers that are killed. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type SimulatedAgent, simulateAgent } from '../../bench/agents/simulated-agent.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import type { Cluster } from './support/cluster.ts';
import { mutualProgram } from './support/mutual.ts';
import { makePlace } from './support/place.ts';
import { type Finished, run } from './support/program.ts';
import { agentPorts, fleetSize, startThreeServers, type ThreeServers } from './support/three-servers.ts';

const place = makePlace();
let rig: ThreeServers;
let cluster: Cluster;
let returned: SimulatedAgent | undefined;

before(async () => {
  rig = await startThreeServers(place);
  cluster = rig.cluster;
});
after(async () => {
  await returned?.close();
  await rig?.close();
  await place.close();
});

const commandLine = (server: number, ...more: string[]): string[] => [
  mutualProgram,
  ...['authority', 'rotate', '--emergency', '--output', 'json'],
  ...['--admin-socket', cluster.servers[server]!.adminSocket],
  ...more,
];

const rotate = (server: number, ...more: string[]): Promise<Finished> =>
  run(process.execPath, commandLine(server, ...more), { deadlineMs: 200_000 });

/** The states that a command told, in order. */
const statesOf = ({ stdout }: Pick<Finished, 'stdout'>) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('rotate --emergency, three servers, 200 agents, one away: 199 of 200, refused, killed, resumed elsewhere, finished when the last returns', async () => {
  const start = await rig.bundleOf(0);
  assert.equal(start.x509Authorities.length, 3);
  const away = rig.fleet.agents[7]!;
  const { id, node } = away;
  await away.close();

  // A command that is killed in the middle, and a server with it.
  const killed = await place.start('rotate', process.execPath, commandLine(0, '--wait', '150s'));
  await killed.line(/"step":"ACTIVATE"|"step":"TAINT"/, 150_000);
  await cluster.servers[0]!.program().stop('SIGKILL');
  await killed.stop('SIGKILL');

  // At another server it is the same rotation; without the third server it cannot go on, with it, it waits for the agent.
  await cluster.servers[0]!.restart();
  const waiting = await place.start('waiting', process.execPath, commandLine(1, '--wait', '150s'));
  await waiting.line(new RegExp(`"covered":${fleetSize - 1},.*"step":"TAINT"`), 150_000);
  await waiting.stop();
  const refused = await rotate(1, '--wait', '5s');
  assert.notEqual(refused.code, 0, refused.stdout);
  const last = statesOf(refused).at(-1);
  console.log(`${last.coverage.covered} of ${last.coverage.agents}: ${refused.stderr.trim()}`);
  assert.equal(last.step, 'TAINT');
  assert.deepEqual([last.coverage.covered, last.coverage.agents], [fleetSize - 1, fleetSize]);
  assert.deepEqual(
    last.coverage.uncovered.map((one: { id: string }) => one.id),
    [id],
  );
  assert.match(refused.stderr, /199 of 200 agents have left the old authorities/);
  assert.equal(statesOf(refused)[0].id, JSON.parse(killed.output().split('\n')[0]!).id, 'the same rotation');
  const held = await rig.bundleOf(1);
  assert.equal(held.x509Authorities.filter(({ tainted }) => tainted).length, 3, 'nothing is revoked');

  // The last one knows only the old authorities, and comes back.
  const finishing = rotate(2, '--wait', '150s');
  returned = await simulateAgent({
    server: cluster.balancer.address,
    bundle: start,
    from: { node },
    fetchSvids: true,
    ...agentPorts,
  });
  const finished = await finishing;
  assert.equal(finished.code, 0, finished.stderr);
  const end = statesOf(finished).at(-1);
  assert.equal(end.step, 'DONE');
  assert.ok(end.authorities.every((one: { revoked: boolean; left_out: boolean }) => one.revoked && !one.left_out));

  const bundle = await rig.bundleOf(0);
  assert.equal(bundle.x509Authorities.length, 3, 'one for each server');
  assert.ok(bundle.x509Authorities.every(({ tainted }) => !tainted));
  for (const old of start.x509Authorities)
    assert.ok(!bundle.x509Authorities.some(({ certificate }) => certificate.equals(old.certificate)), 'revoked');
  assert.ok(bundle.jwtAuthorities.every(({ keyId }) => !start.jwtAuthorities.some((old) => old.keyId === keyId)));
  for (const agent of [...rig.fleet.agents.filter((one) => one !== away), returned]) {
    assert.equal(agent.svids, agent.entries, 'no SVID was lost');
    verifyX509Svid(agent.node.chain, bundle, agentPorts.clock.now());
  }
  assert.equal(returned.attestations, 0, 'it did not have to attest anew');
});
