/**
 * go-spiffe's generated client of the SPIFFE Broker API on our agent: processes and pods, X.509 and JWT, through renewals
 * of the workload and of the broker, a redaction, the end of a process, and each reason for a refusal.
 */

import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { fakeKubelet } from '../agent/support/fake-kubelet.ts';
import {
  admin,
  createEntry,
  joinToken,
  startAgent,
  startServer,
  verifyJwtOffline,
  writeBundle,
} from './support/pair.ts';
import { freePort, type Place, withPlace } from './support/place.ts';
import { run } from './support/program.ts';

const alias = 'spiffe://example.org/node';
const brokerId = 'spiffe://example.org/broker';
const target = 'spiffe://example.org/target';
const uid = 'a1b2c3d4-e5f6-7890-abcd-ef1234567890';

/** A server, an agent with a broker endpoint, the broker's program and a workload's; told apart by their paths. */
async function rig(place: Place, broker: object = {}, more: object = {}, brokerTtl = '3600') {
  const server = await startServer('mutual', place, 'server', { x509Ttl: 10 });
  const program = place.path('bin', 'broker');
  const workload = place.path('bin', 'workload');
  copyFileSync(peerPath('peer-broker'), program);
  copyFileSync('/bin/sleep', workload);
  await createEntry(server, brokerId, alias, [`unix:path:${program}`], '-x509SVIDTTL', brokerTtl);
  const entry = await createEntry(server, target, alias, [`unix:path:${workload}`], '-hint', 'inner');
  const endpoint = place.path('agent', 'b', 'broker.sock');
  const agent = await startAgent('mutual', place, 'agent', server, {
    bundle: await writeBundle(server),
    joinToken: await joinToken(server, alias),
    config: { broker: { socket: endpoint, processes: [brokerId], ...broker }, ...more },
  });
  const { agents } = await admin(server, 'agent', 'list');
  const { trust_domain, path } = agents[0].id;
  const common = ['-workload', agent.socket, '-agent', `spiffe://${trust_domain}${path}`];
  const local = [...common, '-endpoint', `unix:${endpoint}`];
  const ask = async (verb: string, args: readonly string[], command = program) => {
    const { stdout, stderr } = await run(command, [verb, ...args]);
    const last = stdout.trimEnd().split('\n').at(-1) ?? '';
    assert.ok(last.startsWith('{'), `${stdout}${stderr}`);
    return JSON.parse(last);
  };
  return { server, program, workload, entry, common, local, ask };
}

test("BR-1 BR-2 BR-13 BR-18 go-spiffe's generated client gets SVIDs of a process, their renewal, and their end", () =>
  withPlace(async (place) => {
    const { server, program, workload, entry, local, ask } = await rig(place);
    const running = await place.start('workload', workload, ['600']);
    const other = await place.start('other', workload, ['600']);
    const [pid, otherPid] = [String(running.pid), String(other.pid)];
    const watching = await place.start('watch', program, ['watch', ...local, '-pid', pid]);
    const first = await watching.event('update');
    assert.deepEqual([first.ids, first.hints, first.verified], [[target], ['inner'], true]);
    const renewed = await watching.event('update', ({ serials }) => serials[0] !== first.serials[0]);
    assert.deepEqual([renewed.ids, renewed.verified], [[target], true]);

    const { id, token, hint } = await ask('jwt', [...local, '-pid', pid, '-audience', 'db']);
    assert.deepEqual([id, hint], [target, 'inner']);
    assert.equal((await verifyJwtOffline(server, token, 'db')).id, target);
    const own = ['spiffe://example.org'];
    assert.deepEqual(await ask('bundles', [...local, '-pid', pid]), { event: 'bundles', x509: own, jwt: own });

    await running.stop();
    const ended = await watching.event('refused');
    assert.deepEqual([ended.code, ended.reason, ended.domain], ['NotFound', 'WORKLOAD_NOT_FOUND', 'spiffe.io']);
    assert.deepEqual(ended.metadata, { pid });

    const second = await place.start('second', program, ['watch', ...local, '-pid', otherPid]);
    await second.event('update');
    await admin(server, 'entry', 'delete', '-entryID', entry);
    const redacted = await second.event('refused');
    assert.deepEqual([redacted.code, redacted.reason], ['PermissionDenied', 'WORKLOAD_NOT_ENTITLED']);
  }));

test('BR-3 BR-15 BR-16 BR-17 BR-23 BE-3 BE-8 the same client reads each refusal with its code and its reason', () =>
  withPlace(async (place) => {
    const { server, program, workload, local, ask } = await rig(place);
    const running = await place.start('workload', workload, ['600']);
    const stranger = await place.start('stranger', '/bin/sleep', ['600']);
    const pid = ['-pid', String(running.pid)];
    const refusal = async (verb: string, ...args: string[]) => {
      const { event, code, reason } = await ask(verb, [...local, ...args]);
      return [event, code, reason];
    };
    const invalid = ['refused', 'InvalidArgument', 'WORKLOAD_REFERENCE_INVALID'];
    for (const verb of ['watch', 'jwt', 'bundles']) {
      const audience = verb === 'jwt' ? ['-audience', 'db'] : [];
      const cases: [string[], (string | undefined)[]][] = [
        [[], invalid],
        [['-pid', '-5'], invalid],
        [['-type', 'type.googleapis.com/acme.Thing'], invalid],
        [['-uid', 'no-uuid'], invalid],
        [
          ['-pid', '4194305'],
          ['refused', 'NotFound', 'WORKLOAD_NOT_FOUND'],
        ],
        [
          ['-pid', String(stranger.pid)],
          ['refused', 'PermissionDenied', 'WORKLOAD_NOT_ENTITLED'],
        ],
        [
          ['-uid', uid],
          ['refused', 'PermissionDenied', undefined],
        ],
        [
          [...pid, '-header', ''],
          ['refused', 'InvalidArgument', undefined],
        ],
        [
          [...pid, '-header', 'True'],
          ['refused', 'InvalidArgument', undefined],
        ],
      ];
      for (const [args, expected] of cases)
        assert.deepEqual(await refusal(verb, ...audience, ...args), expected, `${verb} ${args}`);
    }
    assert.deepEqual(await refusal('jwt', ...pid), ['refused', 'InvalidArgument', undefined]);
    // The same program from another path has an SVID of its own, and is no broker.
    const other = place.path('bin', 'no-broker');
    copyFileSync(program, other);
    await createEntry(server, 'spiffe://example.org/other', alias, [`unix:path:${other}`]);
    const denied = await ask('jwt', [...local, ...pid, '-audience', 'db'], other);
    assert.deepEqual([denied.code, denied.reason], ['PermissionDenied', undefined]);
    assert.match(denied.message, /"spiffe:\/\/example.org\/other" is not a broker of this agent/);
  }));

test('BE-6 a stream goes on through the end of the SVID that it was begun with, and a wrong agent is not believed', () =>
  withPlace(async (place) => {
    const { program, workload, local, ask } = await rig(place, {}, {}, '10');
    const running = await place.start('workload', workload, ['600']);
    const watching = await place.start('watch', program, ['watch', ...local, '-pid', String(running.pid)]);
    await watching.event('update');
    const again = await watching.event('again', () => true, 60_000);
    assert.match(again.message, /has expired/);
    const before = watching.events('update').length;
    await watching.event('update', () => watching.events('update').length > before, 60_000);
    assert.deepEqual(watching.events('refused'), []);
    const at = local.indexOf('-agent');
    const wrong = local.with(at + 1, 'spiffe://example.org/spire/agent/other');
    const { code, message } = await ask('jwt', [...wrong, '-pid', String(running.pid), '-audience', 'db']);
    assert.equal(code, 'Unavailable');
    assert.match(message, /unexpected ID .*spire\/agent/);
  }));

test('BR-5 BR-7 BR-9 BR-19 pods over the network: by key and UID, until they go; no process', () =>
  withPlace(async (place) => {
    const kubelet = await fakeKubelet();
    try {
      const container = { name: 'web', id: 'a'.repeat(64), image: 'web:1', imageID: 'web@sha256:aa' };
      kubelet.pods = [{ name: 'web-0', uid, labels: { app: 'web' }, containers: [container] }];
      const port = await freePort();
      const listen = `127.0.0.1:${port}`;
      const { server, program, workload, common, ask } = await rig(
        place,
        { listen, podsOverNetwork: [brokerId] },
        { workloadAttestors: { unix: { discoverWorkloadPath: true }, k8s: { kubeletReadOnlyPort: kubelet.port } } },
      );
      const pod = 'spiffe://example.org/pod';
      await createEntry(server, pod, alias, ['k8s:ns:shop', 'k8s:pod-label:app:web']);
      const remote = [...common, '-endpoint', listen];
      const watching = await place.start('watch', program, ['watch', ...remote, '-pod', 'shop/web-0', '-uid', uid]);
      assert.deepEqual((await watching.event('update')).ids, [pod]);
      assert.equal((await ask('jwt', [...remote, '-pod', 'shop/web-0', '-audience', 'db'])).id, pod);
      assert.equal((await ask('jwt', [...remote, '-uid', uid, '-audience', 'db'])).id, pod);
      const other = uid.replace('a1', 'b1');
      const missing = await ask('jwt', [...remote, '-pod', 'shop/web-0', '-uid', other, '-audience', 'db']);
      assert.deepEqual([missing.code, missing.reason], ['NotFound', 'WORKLOAD_NOT_FOUND']);
      assert.deepEqual(missing.metadata, { namespace: 'shop', name: 'web-0', uid: other });

      const running = await place.start('workload', workload, ['600']);
      const denied = await ask('jwt', [...remote, '-pid', String(running.pid), '-audience', 'db']);
      assert.deepEqual([denied.code, denied.reason], ['PermissionDenied', undefined]);

      kubelet.pods = [];
      const gone = await watching.event('refused', () => true, 60_000);
      assert.deepEqual([gone.code, gone.reason], ['NotFound', 'WORKLOAD_NOT_FOUND']);
    } finally {
      await kubelet.close();
    }
  }));

test('BE-10 BE-11 BR-2 grpcurl finds the service of the standard by reflection, with its methods and no other', () =>
  withPlace(async (place) => {
    const { server, local } = await rig(place);
    const files = dirname(place.path('minted', 'svid.pem'));
    await run(peerPath('spire-server'), [
      ...['x509', 'mint', '-socketPath', server.adminSocket, '-spiffeID', brokerId, '-write', files],
    ]);
    const endpoint = `unix://${local[local.indexOf('-endpoint') + 1]!.slice('unix:'.length)}`;
    const identity = ['-cert', join(files, 'svid.pem'), '-key', join(files, 'key.pem')];
    const ask = (shown: readonly string[], header: string, ...words: string[]) =>
      run(peerPath('grpcurl'), [
        ...['-insecure', '-authority', 'agent', '-reflect-header', header],
        ...shown,
        endpoint,
        ...words,
      ]);
    const header = 'broker.spiffe.io: true';
    const listed = await ask(identity, header, 'list');
    assert.equal(listed.code, 0, listed.stderr);
    const reflection = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'];
    const services = listed.stdout
      .trim()
      .split('\n')
      .filter((name) => !reflection.includes(name));
    assert.deepEqual(services, ['spiffe.broker.API']);
    const { stdout } = await ask(identity, header, 'describe', 'spiffe.broker.API');
    assert.deepEqual([...stdout.matchAll(/^ *rpc (\w+)/gm)].map(([, name]) => name).sort(), [
      'FetchJWTSVID',
      'SubscribeToJWTBundles',
      'SubscribeToX509Bundles',
      'SubscribeToX509SVID',
    ]);
    assert.match((await ask([], header, 'list')).stderr, /Unauthenticated|shown no SVID/);
    assert.match((await ask(identity, 'x: y', 'list')).stderr, /security header missing/);
  }));
