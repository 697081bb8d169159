/**
 * Two real Envoys, each with the bootstrap of docs/envoy.md and an agent of its own trust domain, under constant load:
 * renewals on both sides and a change of the other's authority cost no request.
 */

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { after, before, describe } from 'node:test';
import { ask, bootstrapOf, type Envoy, startEnvoy, startLoad } from './support/envoy.ts';
import {
  type Agent,
  admin,
  createEntry,
  joinToken,
  type Server,
  startAgent,
  startServer,
  writeBundle,
} from './support/pair.ts';
import { freePort, makePlace } from './support/place.ts';
import { spireCli } from './support/spire.ts';
import { until } from './support/until.ts';

const rotations = 20;
const who = `unix:uid:${process.getuid!()}`;

interface Side {
  readonly domain: string;
  readonly id: string;
  readonly peer: string;
  readonly server: Server;
  readonly agent: Agent;
  readonly entry: string;
}

describe('a pair of Envoys in two trust domains', () => {
  const place = makePlace();
  const ports = { inbound: 0, outbound: 0, program: 0 };
  let program: HttpServer;
  let [left, right] = [{} as Side, {} as Side];
  let [inbound, outbound] = [{} as Envoy, {} as Envoy];

  const side = async (domain: string, name: string, peer: string): Promise<Side> => {
    const server = await startServer('mutual', place, `server-${name}`, { trustDomain: domain, logLevel: 'WARN' });
    const agent = await startAgent('mutual', place, `agent-${name}`, server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, `spiffe://${domain}/node`),
      logLevel: 'INFO',
    });
    return { domain, id: `spiffe://${domain}/${name}`, peer, server, agent, entry: '' };
  };
  /** Gives one server the bundle that another has now. */
  const tell = async (to: Server, of: Server): Promise<void> => {
    const { stdout } = await spireCli(of.adminSocket, ['bundle', 'show', '-format', 'spiffe']);
    const path = `${to.dir}/${of.trustDomain}.json`;
    writeFileSync(path, stdout);
    await admin(to, 'bundle', 'set', '-id', `spiffe://${of.trustDomain}`, '-format', 'spiffe', '-path', path);
  };
  const register = async (one: Side): Promise<Side> => ({
    ...one,
    entry: await createEntry(one.server, one.id, `spiffe://${one.domain}/node`, [who], '-federatesWith', one.peer),
  });
  /** An entry of a new revision is issued a new SVID. */
  const renew = (one: Side, round: number): Promise<unknown> =>
    admin(
      ...[one.server, 'entry', 'update', '-entryID', one.entry, '-spiffeID', one.id],
      ...['-parentID', `spiffe://${one.domain}/node`, '-selector', who, '-federatesWith', one.peer],
      ...['-x509SVIDTTL', String(3_000 + round)],
    );
  const changed = (envoy: Envoy, name: string, from: string | undefined): Promise<string> =>
    until(`${name} is another`, 60_000, async () => {
      const version = (await envoy.versions())[name];
      return version !== undefined && version !== from ? version : undefined;
    });

  before(async () => {
    // The program behind the server's Envoy says who it was told is calling.
    program = createServer((request, response) => response.end(request.headers['x-forwarded-client-cert']));
    await new Promise<void>((resolve) => program.listen(0, '127.0.0.1', resolve));
    ports.program = (program.address() as AddressInfo).port;
    [ports.inbound, ports.outbound] = [await freePort(), await freePort()];
    left = await side('example.org', 'server', 'spiffe://other.org');
    right = await side('other.org', 'client', 'spiffe://example.org');
    await tell(left.server, right.server);
    await tell(right.server, left.server);
    [left, right] = [await register(left), await register(right)];
    inbound = await startEnvoy(
      place,
      'envoy-server',
      bootstrapOf('server.yaml', {
        '/run/mutual/public/api.sock': left.agent.socket,
        'port_value: 8443': `port_value: ${ports.inbound}`,
        'port_value: 8080': `port_value: ${ports.program}`,
      }),
    );
    outbound = await startEnvoy(
      place,
      'envoy-client',
      bootstrapOf('client.yaml', {
        '/run/mutual/public/api.sock': right.agent.socket,
        'port_value: 9001': `port_value: ${ports.outbound}`,
        'port_value: 8443': `port_value: ${ports.inbound}`,
      }),
    );
    await until('the first request', 60_000, () => ask(ports.outbound));
  });
  after(async () => {
    await place.close();
    program.close();
  });

  test(`${rotations} renewals on each side and a rotation of the other trust domain's authority: no failed request`, async (t) => {
    const load = startLoad(ports.outbound);
    const versions = { server: (await inbound.versions()).default, client: (await outbound.versions())[right.id] };
    const seen = { server: new Set([versions.server]), client: new Set([versions.client]) };
    const rotate = async (round: number): Promise<void> => {
      await Promise.all([renew(left, round), renew(right, round)]);
      versions.server = await changed(inbound, 'default', versions.server);
      versions.client = await changed(outbound, right.id, versions.client);
      seen.server.add(versions.server);
      seen.client.add(versions.client);
      const before = load.good;
      await until('more requests', 60_000, () => load.good >= before + 20);
    };
    for (let round = 1; round <= rotations; round++) await rotate(round);

    // The next authority is known to the other side before it signs, and the old one goes after its last SVID has.
    let all = (await inbound.versions()).ALL;
    const prepared = await admin(right.server, 'localauthority', 'x509', 'prepare');
    const { authority_id } = prepared.prepared_authority;
    await tell(left.server, right.server);
    all = await changed(inbound, 'ALL', all);
    const activated = await admin(right.server, 'localauthority', 'x509', 'activate', '-authorityID', authority_id);
    await rotate(rotations + 1);
    const old = activated.old_authority?.authority_id ?? (await oldAuthority(right.server));
    await admin(right.server, 'localauthority', 'x509', 'taint', '-authorityID', old);
    await admin(right.server, 'localauthority', 'x509', 'revoke', '-authorityID', old);
    await tell(left.server, right.server);
    await changed(inbound, 'ALL', all);
    await rotate(rotations + 2);

    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.ok(seen.server.size > rotations && seen.client.size > rotations, 'each renewal was taken');
    const hashes = new Set([...load.callers].map((caller) => /Hash=(\w+)/.exec(caller)?.[1]));
    assert.ok(hashes.size > rotations, `the server saw ${hashes.size} certificates of the client`);
    for (const caller of load.callers) assert.match(caller, /URI=spiffe:\/\/other\.org\/client$/);
    t.diagnostic(`${load.good} requests, ${load.failures.length} failed; ${hashes.size} client certificates`);
    for (const { agent } of [left, right])
      assert.doesNotMatch(agent.program().output(), /SDS client|stand for nothing/);
  });

  test('without the federation the same client is refused, and with it served again: the bundles were what let it in', async () => {
    const all = (await inbound.versions()).ALL;
    await spireCli(left.server.adminSocket, ['bundle', 'delete', '-id', 'spiffe://other.org', '-mode', 'dissociate']);
    const without = await changed(inbound, 'ALL', all);
    await assert.rejects(ask(ports.outbound));
    await tell(left.server, right.server);
    await renew(left, 100);
    await changed(inbound, 'ALL', without);
    await until('served again', 60_000, () => ask(ports.outbound));
  });

  test('an Envoy whose agent restarts keeps serving and is told of the next renewal', async () => {
    const load = startLoad(ports.outbound, 2);
    const { default: version } = await inbound.versions();
    await left.agent.program().stop();
    await left.agent.restart();
    await renew(left, 200);
    await changed(inbound, 'default', version);
    await load.stop();
    assert.deepEqual(load.failures, []);
  });
});

async function oldAuthority(server: Server): Promise<string> {
  const { old } = await admin(server, 'localauthority', 'x509', 'show');
  return old.authority_id;
}
