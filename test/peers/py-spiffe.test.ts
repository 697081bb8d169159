/** A Python program with py-spiffe on our socket: both kinds of SVID, PyJWT as another JOSE implementation, a rotation. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { createEntry, joinToken, startAgent, startServer, writeBundle } from './support/pair.ts';
import { withPlace } from './support/place.ts';

const alias = 'spiffe://example.org/node';
const id = 'spiffe://example.org/python';

test('py-spiffe fetches both kinds of SVID from our socket, PyJWT verifies, and its source follows a rotation', () =>
  withPlace(async (place) => {
    const server = await startServer('mutual', place, 'server', { x509Ttl: 12 });
    await createEntry(server, id, alias, [`unix:uid:${process.getuid!()}`]);
    const agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
    });
    const script = join(import.meta.dirname, 'py', 'workload.py');
    const python = await place.start('python', peerPath('py-spiffe'), [
      script,
      `unix://${agent.socket}`,
      'some-audience',
    ]);
    const x509 = await python.event('x509');
    assert.equal(x509.id, id);
    assert.equal(x509.chain, 1);
    assert.deepEqual((await python.event('bundles')).domains, ['example.org']);
    const jwt = await python.event('jwt');
    assert.deepEqual([jwt.id, jwt.validated], [id, id]);
    assert.deepEqual(await python.event('pyjwt'), { event: 'pyjwt', sub: id, alg: 'ES256' });
    const first = await python.event('update');
    const next = await python.event('update', (event) => event.serial !== first.serial, 60_000);
    assert.equal(next.id, id);
  }));
