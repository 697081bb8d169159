/** Programs of go-spiffe users on our socket: mutual TLS between two identities, without a break while both rotate. */

import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { createEntry, joinToken, startAgent, startServer, workload, writeBundle } from './support/pair.ts';
import { withPlace } from './support/place.ts';
import { until } from './support/until.ts';

const alias = 'spiffe://example.org/node';
const ids = { server: 'spiffe://example.org/server', client: 'spiffe://example.org/client' };

test('a go-spiffe mTLS server and client stay connected through rotations of their SVIDs and of the CA', () =>
  withPlace(async (place) => {
    const caTtl = 60;
    const server = await startServer('mutual', place, 'server', { caTtl, x509Ttl: 20, agentTtl: 20 });
    // Each program is told apart by its path: both run as one user.
    const mtls = peerPath('peer-mtls');
    const copies = { server: place.path('bin', 'server'), client: place.path('bin', 'client') };
    for (const side of ['server', 'client'] as const) {
      copyFileSync(mtls, copies[side]);
      await createEntry(server, ids[side], alias, [`unix:path:${copies[side]}`]);
    }
    const agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
    });
    const socket = `unix://${agent.socket}`;
    const listening = await place.start('mtls-server', copies.server, [
      'server',
      '-socket',
      socket,
      '-authorize',
      ids.client,
    ]);
    const { address } = await listening.event('listening');
    const calling = await place.start('mtls-client', copies.client, [
      ...['client', '-socket', socket, '-authorize', ids.server, '-address', String(address), '-every', '100ms'],
    ]);
    const { issuer: firstIssuer } = await listening.event('update');
    for (const program of [listening, calling])
      await program.event('update', (event) => event.issuer !== firstIssuer, caTtl * 1000 + 60_000);
    const known = calling.events('echo').length;
    await until('more calls after it', 60_000, () => calling.events('echo').length > known + 5);

    const serials = (event: string) => new Set(calling.events(event).map(({ serial }) => serial));
    assert.ok(serials('echo').size >= 3, `the client met ${serials('echo').size} certificates of the server`);
    assert.deepEqual(calling.events('refused'), []);
    assert.deepEqual(listening.events('refused'), []);
    assert.ok(listening.events('accepted').every(({ peer }) => peer === ids.client));

    // The same socket gives neither identity to a program with another path.
    await assert.rejects(workload(agent, 'x509'), /PermissionDenied/);
  }));
