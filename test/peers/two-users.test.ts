/**
 * Two users of one machine, each with an entry: whoever calls gets its own identity and never the other's, also when
 * many call at once, when callers die in the middle, and when a process id is used again between connect and read.
 */

import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, readdirSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import test, { after, before, describe } from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { type Agent, createEntry, joinToken, startAgent, startServer, writeBundle } from './support/pair.ts';
import { makePlace } from './support/place.ts';
import { type Event, run } from './support/program.ts';
import { until } from './support/until.ts';

const alias = 'spiffe://example.org/node';
/** Numbers that no account here has; the kernel does not mind. */
const users = [42001, 42002] as const;
const idOf = (uid: number) => `spiffe://example.org/user/${uid}`;

describe('two users on one machine', () => {
  const place = makePlace();
  let agent: Agent;
  let program: string;

  before(async () => {
    assert.equal(process.getuid!(), 0, 'this test starts programs of two users, which only root may');
    chmodSync(place.dir, 0o755);
    const server = await startServer('mutual', place, 'server');
    for (const uid of [0, ...users]) await createEntry(server, idOf(uid), alias, [`unix:uid:${uid}`]);
    agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
      logLevel: 'WARN',
    });
    // The cache lies in root's home; the callers are somebody else.
    program = place.path('bin', 'workload');
    copyFileSync(peerPath('peer-workload'), program);
    chmodSync(join(program, '..'), 0o755);
    chmodSync(join(agent.socket, '..'), 0o755);
  });
  after(() => place.close());

  const fetch = async (uid: number): Promise<Event> => {
    const args = ['x509', '-socket', `unix://${agent.socket}`];
    const { stdout } = await run(program, args, { uid, gid: uid });
    return JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as Event;
  };
  const idsOf = (event: Event): string[] => event.svids?.map((svid: { id: string }) => svid.id) ?? [event.message];

  test('each gets its own identity and no other, 40 calls at a time', async () => {
    await until('the entries', 60_000, async () => (await fetch(users[1])).event === 'x509');
    for (let round = 0; round < 5; round++) {
      const callers = Array.from({ length: 40 }, (_, n) => users[n % 2]!);
      const got = await Promise.all(callers.map(fetch));
      assert.deepEqual(
        got.map(idsOf),
        callers.map((uid) => [idOf(uid)]),
      );
    }
  });

  test('S#886 a process that takes the id of a dead caller lends it nothing', async () => {
    for (let round = 0; round < 5; round++) {
      const script = join(import.meta.dirname, 'py', 'recycle.py');
      const caller = ['x509', '-fd', '3', '-timeout', '5s', '-socket', `unix://${agent.socket}`];
      const args = [script, String(agent.program().pid), agent.socket, String(users[0]), program, ...caller];
      const { code, stdout, stderr } = await run('python3', args);
      assert.equal(code, 0, stderr);
      const event = JSON.parse(stdout.trimEnd()) as Event;
      assert.ok(!idsOf(event).includes(idOf(0)), 'the identity of the new owner of the id');
      assert.equal(event.event, 'error', `a dead caller is refused, not given ${idsOf(event)}`);
    }
    assert.deepEqual(idsOf(await fetch(users[0])), [idOf(users[0])], 'and the living are still served');
  });

  test('file descriptors return to their number after 10,000 callers that die in the middle', async () => {
    const descriptors = () => readdirSync(`/proc/${agent.program().pid}/fd`).length;
    await fetch(users[0]);
    const base = await until('quiet', 60_000, () => descriptors());
    let seed = 1;
    const draw = (below: number) => {
      seed = (seed * 48271) % 2147483647;
      return seed % below;
    };
    const die = (): Promise<void> =>
      new Promise((resolve) => {
        if (draw(4) > 0) {
          const socket = connect(agent.socket, () => {
            if (draw(2)) socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'.slice(0, draw(25)));
            socket.destroy();
          });
          socket.on('error', () => {});
          socket.on('close', () => resolve());
          return;
        }
        const session = connectHttp2('http://localhost', { createConnection: () => connect(agent.socket) });
        session.on('error', () => {});
        session.on('close', () => resolve());
        const call = session.request({
          ':method': 'POST',
          ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
          'content-type': 'application/grpc',
          te: 'trailers',
          'workload.spiffe.io': 'true',
        });
        call.on('error', () => {});
        if (draw(2)) {
          call.end(Buffer.alloc(5));
          call.once('response', () => session.destroy());
        } else {
          call.write(Buffer.alloc(5));
          session.once('connect', () => session.destroy());
        }
        call.once('close', () => session.destroy());
      });
    for (let done = 0; done < 10_000; done += 100) await Promise.all(Array.from({ length: 100 }, die));
    await until(`descriptors are ${base} again`, 60_000, () => descriptors() <= base);
    assert.deepEqual(idsOf(await fetch(users[1])), [idOf(users[1])]);
  });
});
